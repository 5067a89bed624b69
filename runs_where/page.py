"""Writes what ran where: a table of places and subjects, and the words of those that refuse."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence

import numpy as np

from runs_where.places import LIMIT, Place
from runs_where.running import Outcome

#: By place, subject and form.
Outcomes = Mapping[tuple[str, str, str], Outcome]

#: What to do about a refusal, by what stands in its words.
_ADVICE = {
    "no input 'explain'": "The optional gate is taken for a constant; compile with `gate=True`. "
    '(`runtime.load(path, engine="openvino")` makes it an input again.)',
    "Invalid input name": "The optional gate was folded in, and what explains with it; compile "
    "with `gate=True`.",
    "invalid input 'explain'": "onnxruntime-web knows no inputs with a default; compile with "
    "`gate=True`.",
    "has the shape (0, 0, 0)": "onnxruntime-node takes the value of an optional gate and goes by "
    "its default nonetheless; compile with `gate=True`.",
    "input_direction": "The gradient of a recurrence reads time from its end, which this evaluator "
    "has not got.",
}

_HEAD = """# Where artefacts run

Written by `{command}` on {date} ({system}). Each artefact was run, as it is, in each of the
runtimes below, at two batch sizes and two of every open size, with the gate on and off. Its numbers
were compared with those of the untouched Keras model (called eagerly, with a tape around the call)
and with those of `runtime.load(path)`.

A number says that all agree, and is the largest difference found, over the largest number of that
output; {limit:.0e} is the limit. ONNX artefacts come with four gates (`required`, `optional`,
`split`, `none`) of the first model, with `required` and `none` of the others; where a cell names no
gate, it is true of all of them. Recurrent models are converted to LiteRT for each length by itself
(`--size time=N`). What does not run, or gives other numbers, is said below.

"""


def page(places: Sequence[Place], subjects: Sequence[str], outcomes: Outcomes, command: str) -> str:
    """Returns the page as Markdown, which says what command writes it."""
    notes: list[str] = []
    rows = [
        "| runtime | " + " | ".join(subjects) + " |",
        "|---|" + "---|" * len(subjects),
    ]
    for place in places:
        cells = [_cell(place, subject, outcomes, notes) for subject in subjects]
        rows.append(f"| {place.name} | " + " | ".join(cells) + " |")
    versions = [f"| {place.name} | {_versions(place, outcomes)} |" for place in places]
    date = datetime.date.today().isoformat()
    system = f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}"
    listed = "\n".join(f"{i}. {note}" for i, note in enumerate(notes, start=1))
    return "\n".join(
        [
            _HEAD.format(command=command, date=date, system=system, limit=LIMIT).rstrip(),
            "",
            *rows,
            "",
            "## What does not run, in the words of what refuses it",
            "",
            listed or "Nothing.",
            "",
            "## Versions",
            "",
            "| runtime | versions |",
            "|---|---|",
            *versions,
            "",
        ]
    )


def _cell(place: Place, subject: str, outcomes: Outcomes, notes: list[str]) -> str:
    found = {f: outcomes.get((place.name, subject, f)) for f in place.forms}
    tried = {form: outcome for form, outcome in found.items() if outcome is not None}
    if not tried:
        return ""
    said: dict[str, list[str]] = {}
    distances = [o.distance for o in tried.values() if o.equal and o.distance is not None]
    for form, outcome in tried.items():
        if outcome.equal:
            text = f"{max(distances):.0e}"
        else:
            note = _note(place, outcome)
            if note not in notes:
                notes.append(note)
            if outcome.distance is None:
                text = f"refused ({notes.index(note) + 1})"
            else:
                much = f" by {outcome.distance:.0e}" if outcome.distance < np.inf else ""
                text = f"**differs**{much} ({notes.index(note) + 1})"
        said.setdefault(text, []).append(form)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(forms)}: {text}" for text, forms in said.items())


def advice_on(place: Place, outcome: Outcome) -> str:
    """Returns what to do about a refusal or a difference that is known, else nothing."""
    known = [text for part, text in _ADVICE.items() if part in outcome.words]
    if place.advice and outcome.distance is not None:
        known.append(place.advice)
    return " ".join(known)


def _note(place: Place, outcome: Outcome) -> str:
    """Returns the words and the advice; where numbers differ, which the cell tells, the latter."""
    advice = advice_on(place, outcome)
    if place.advice and advice == place.advice:
        return advice
    return f"`{outcome.words.replace('`', chr(39))}` {advice}".rstrip()


def _versions(place: Place, outcomes: Outcomes) -> str:
    said = {o.versions: None for (name, _, _), o in outcomes.items() if name == place.name}
    return max(said, key=len, default="")
