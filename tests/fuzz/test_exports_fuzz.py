"""Exports of a fixed seed that are killed, meet, or cannot write leave the old or the new."""

import os

import pytest

from fuzz import exports
from fuzz.exports import attempted
from fuzz.outcome import CRASHES, DIFFERS, EQUAL

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def test_what_lies_there_is_whole():
    outcomes = [attempted(f"0:{number}") for number in (1, 4, 5, 6, 8, 13, 14)]
    assert not [o for o in outcomes if o.verdict != EQUAL]
    told = " ".join(o.reason for o in outcomes)
    for part in (
        "killed twice",
        "full",
        "met",
        "not allowed",
        "with data",
        "two graphs",
        "one file",
    ):
        assert part in told


def test_litter_and_halves_are_found(monkeypatch):
    put = exports.pg.compile

    def litters(model, probes, path, **given):
        put(model, probes, path, **given)
        path.with_name("litter").touch()

    def halves(model, probes, path, **given):
        put(model, probes, path, **given)
        path.write_bytes(path.read_bytes()[:-100])

    for wrong in (litters, halves):
        with monkeypatch.context() as patch:
            patch.setattr(exports.pg, "compile", wrong)
            exports._answers.cache_clear()
            found = {attempted(f"0:{number}").verdict for number in range(3)}
        exports._answers.cache_clear()
        assert found & {DIFFERS, CRASHES}
