"""Arrays in manifests: their text form, and that the bytes of large ones are in the graph alone."""

import json

import numpy as np
import pytest

from probegen.artefact.stored_arrays import SMALL, completed, decoded, encoded, shortened
from probegen.errors import ManifestError

RNG = np.random.default_rng(0)
LARGE = RNG.normal(size=(7, 5, 20)).astype(np.float32)
LITTLE = RNG.normal(size=(2, 3)).astype(np.float16)


def constants_of(*arrays):
    return lambda sizes: [a for a in arrays if a.size in sizes]


def never(sizes):
    raise AssertionError(f"asked for constants of {sizes} elements")


@pytest.mark.parametrize("array", [LARGE, LITTLE, np.arange(6, dtype=np.int32).reshape(3, 2)])
def test_text_holds_type_shape_and_bytes(array):
    back = decoded(json.loads(json.dumps(encoded(array))))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_what_the_graph_holds_is_not_in_the_text():
    assert LARGE.nbytes > SMALL
    probes = [{"probe": "a", "baseline": {"image": encoded(LARGE)}, "b": [encoded(LITTLE)]}]
    held = constants_of(RNG.normal(size=LARGE.shape), LARGE[None], LITTLE)
    short = shortened(probes, held)
    assert "data" not in short[0]["baseline"]["image"]["array"]
    assert short[0]["b"] == [encoded(LITTLE)]  # small: it stays
    assert completed(json.loads(json.dumps(short)), held) == tuple(probes)


def test_what_the_graph_does_not_hold_stays_in_the_text():
    probes = [{"probe": "a", "baseline": encoded(LARGE)}]
    assert shortened(probes, constants_of(LARGE.astype(np.float64), -LARGE)) == tuple(probes)


def test_no_constant_is_read_where_none_is_wanted():
    probes = [{"probe": "a", "steps": 3, "baseline": encoded(LITTLE)}]
    assert shortened(probes, never) == tuple(probes)
    assert completed(probes, never) == tuple(probes)


def test_a_graph_that_was_changed_is_told():
    short = shortened([{"baseline": encoded(LARGE)}], constants_of(LARGE))
    with pytest.raises(ManifestError, match=r"no longer holds an array of shape \[7, 5, 20\]"):
        completed(short, constants_of(LARGE + 1))
    with pytest.raises(ManifestError, match="kept in the graph of its artefact"):
        decoded(short[0]["baseline"])


def test_bytes_that_were_changed_are_told():
    text = encoded(LITTLE)
    text["array"]["sha256"] = "0" * 64
    with pytest.raises(ManifestError, match="other bytes than its digest"):
        decoded(text)
    text = encoded(LITTLE)
    text["array"]["shape"] = [4, 4]
    with pytest.raises(ManifestError, match="cannot be read"):
        decoded(text)
