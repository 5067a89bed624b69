"""An artefact, what it is asked, and what has to come out; kept in a folder for another machine."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runs_where.exchange import array, arrays, tensor, tensors

Array = npt.NDArray[Any]
_CASES = "cases.json"


@dataclasses.dataclass(frozen=True)
class Request:
    """One run of a graph.

    Attributes:
        model: the file, or the folder.
        feeds: inputs by the graph's names.
        expected: for each output that counts, the untouched model's numbers and those of
            `runtime.load(...)` with its default engine; None in place of both where the gate is
            off, and nothing is to come out.
    """

    model: Path
    feeds: Mapping[str, Array]
    expected: Mapping[str, tuple[Array, Array] | None]


@dataclasses.dataclass(frozen=True)
class Case:
    """An artefact and its requests.

    Attributes:
        subject: what it is of.
        form: its gate ("required", "optional", "split", "none"), or a signature.
        requests: what it is asked.
    """

    subject: str
    form: str
    requests: Sequence[Request]


def keep(cases: Iterable[Case], folder: Path) -> None:
    """Writes cases into a folder, with copies of their artefacts, for `kept` on any machine."""
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    for case in cases:
        asked = []
        for request in case.requests:
            _copy(request.model, folder)
            expected = {
                name: None if both is None else [tensor(np.asarray(a)) for a in both]
                for name, both in request.expected.items()
            }
            feeds = tensors(request.feeds)
            asked.append({"model": request.model.name, "feeds": feeds, "expected": expected})
        said.append({"subject": case.subject, "form": case.form, "requests": asked})
    (folder / _CASES).write_text(json.dumps(said))


def kept(folder: Path) -> list[Case]:
    """Returns the cases that `keep` wrote."""
    return [
        Case(said["subject"], said["form"], [_request(folder, r) for r in said["requests"]])
        for said in json.loads((folder / _CASES).read_text())
    ]


def _request(folder: Path, said: Mapping[str, Any]) -> Request:
    expected = {
        name: None if both is None else (array(both[0]), array(both[1]))
        for name, both in said["expected"].items()
    }
    return Request(folder / said["model"], arrays(said["feeds"]), expected)


def _copy(model: Path, folder: Path) -> None:
    """Copies an artefact, with the data file beside an ONNX file, unless it is there."""
    for path in model.parent.glob(f"{model.name}*"):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
        else:
            shutil.copy2(path, folder / path.name)
