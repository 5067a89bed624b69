"""Writes the artefacts, and what is asked of each and has to come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

import probegen as pg
from probegen import runtime
from probegen.artefact.explain_file import explain_path
from runs_where.case import Array, Case, Request
from runs_where.subjects import SUBJECTS, requests

#: Forms of artefact beside the gates of ONNX: the signatures of a SavedModel.
SIGNATURES = ("serving_default", "explain")


def write_cases(folder: Path, names: Iterable[str] = tuple(SUBJECTS)) -> list[Case]:
    """Compiles every subject in every form into a folder, and computes what is right.

    Nothing is verified on the way: that is what all this is for.
    """
    import keras

    made: list[Case] = []
    for number, name in enumerate(names):
        subject = SUBJECTS[name]
        keras.utils.set_random_seed(7)
        model = subject.build()
        asked = requests(subject)
        right = [subject.right(model, feeds) for feeds in asked]
        for form in subject.forms:
            label = form if isinstance(form, str) else "required" if form else "none"
            path = folder / f"subject_{number}_{label}.onnx"
            pg.compile(model, subject.probes, path, gate=form, verify=False)
            made.append(Case(name, label, _requests(path, label, asked, right)))
        path = folder / f"subject_{number}"
        pg.compile(model, subject.probes, path, verify=False)
        for signature in SIGNATURES:
            made.append(Case(name, signature, _requests(path, signature, asked, right)))
    return made


def _requests(
    path: Path,
    form: str,
    asked: Sequence[Mapping[str, Array]],
    right: Sequence[Mapping[str, Array]],
) -> list[Request]:
    """Returns the runs of one artefact: every request with the gate on, off, and left out."""
    artefact = runtime.load(path, threads=1) if path.is_file() else runtime.load(path)
    predictions = [o.name for o in artefact.manifest.predictions]
    made = []
    for feeds, correct in zip(asked, right, strict=True):
        inputs = dict(feeds)
        target = inputs.pop("target", None)
        ours = artefact.run(inputs, target=target)
        both: dict[str, tuple[Array, Array] | None] = {
            name: (correct[name], np.asarray(ours[name].array)) for name in correct
        }
        alone = {name: both[name] for name in predictions}
        nothing = {name: None for name in both if name not in predictions}
        if form in SIGNATURES:
            explains = form == "explain"
            made.append(Request(path, feeds if explains else inputs, both if explains else alone))
        elif form == "split":
            made.append(Request(path, inputs, alone))
            made.append(Request(explain_path(path), feeds, both))
        elif form == "none":
            made.append(Request(path, feeds, both))
        else:
            made.append(Request(path, {**feeds, "explain": np.array(True)}, both))
            made.append(Request(path, {**feeds, "explain": np.array(False)}, {**alone, **nothing}))
            if form == "optional":
                made.append(Request(path, feeds, {**alone, **nothing}))
    return made
