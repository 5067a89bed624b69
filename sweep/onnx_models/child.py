"""One stage of one case, in a process of its own: `python -m sweep.onnx_models.child`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from sweep.onnx_models.case import AbsentError
from sweep.onnx_models.outcome import NOT_APPLICABLE, Outcome, line

WRITE, CHECK = "write", "check"


def main(stage: str, name: str, place: str, answer: str) -> None:
    """Writes or checks a case, and puts the outcome (nothing where writing went well) in a file."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _silence()
    folder = Path(place)
    outcome: Outcome | None = None
    if stage == WRITE:
        from sweep.onnx_models.sets import cases

        case = next(c for c in cases() if c.name == name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            case.write(folder)
        except AbsentError as error:
            outcome = Outcome(name, NOT_APPLICABLE, line(error))
        except Exception as error:  # the exporter's own refusal, which is no fault of probegen
            told = f"not written: {type(error).__name__}: {error}"
            outcome = Outcome(name, NOT_APPLICABLE, line(told))
    else:
        from sweep.onnx_models.check import check

        outcome = check(name, folder)
    Path(answer).write_text(json.dumps(outcome and dataclasses.asdict(outcome)))


def _silence() -> None:
    """Keeps what exporters tell of themselves off the terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
