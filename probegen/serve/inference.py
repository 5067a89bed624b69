"""From a request to a response: what is asked for, what is fed, what is answered.

`infer` does all of it for one request. A server that puts several requests into one batch calls
`read`, then `compute` on `merged` feeds, then `answer`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probegen.artefact.manifest import (
    GATE_INPUT,
    GROUPS_INPUT,
    REGION_INPUT,
    TARGET_INPUT,
    InputSpec,
    OutputSpec,
)
from probegen.artefact.rows import batch_axis, count_rows
from probegen.errors import ArtefactError, InputError, ProbegenError, did_you_mean
from probegen.runtime import Artefact
from probegen.runtime.feeds import Feeds
from probegen.runtime.inputs import Array
from probegen.serve import datatypes
from probegen.serve.protocol import (
    JSON_LENGTH_HEADER,
    Request,
    Response,
    read_request,
    write_error,
    write_response,
)

#: What a request may say beside the model's inputs, as parameters or as inputs of these names.
OWN = (GATE_INPUT, TARGET_INPUT, REGION_INPUT, GROUPS_INPUT)
#: How near a parameter's name must be to one of `OWN` to pass for a misspelling of it.
_NEAR = 0.75


@dataclasses.dataclass(frozen=True)
class Served:
    """A model as it is served.

    Attributes:
        artefact: what runs.
        name: what requests call it.
        version: which version of the model it is.
    """

    artefact: Artefact
    name: str
    version: str = "1"

    def __post_init__(self) -> None:
        """Refuses an artefact that no request could be answered of.

        Raises:
            ArtefactError: an element type has no name in the protocol, or what takes texts apart
                is not installed.
        """
        specs: list[InputSpec | OutputSpec] = [*self.artefact.inputs, *self.artefact.outputs]
        for spec in specs:
            if spec.dtype not in datatypes.NAMES:
                raise ArtefactError(
                    f"{self.artefact.path!r} cannot be served: {spec.name!r} is of {spec.dtype}, "
                    "for which the Open Inference Protocol has no datatype."
                )
        try:
            _ = self.artefact.texts.tokenizers  # opened now, and not by the first request
        except InputError as error:  # a library is missing, which is no request's fault
            raise ArtefactError(f"{self.artefact.path!r} cannot be served: {error}") from error


@dataclasses.dataclass(frozen=True)
class Job:
    """A request that was checked.

    Attributes:
        feeds: what is fed.
        outputs: names of what is answered, in order.
        rows: its samples.
        region: whether it says what positions count.
    """

    feeds: Feeds
    outputs: tuple[str, ...]
    rows: int
    region: bool = False


@dataclasses.dataclass(frozen=True)
class Reply:
    """What goes back over HTTP.

    Attributes:
        status: 200, or 400 for a request that does not fit, or 500.
        body: its bytes.
        json_length: the length of the JSON at its start, where bytes of tensors follow.
    """

    status: int
    body: bytes
    json_length: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the body is, and how long its JSON is where bytes of tensors follow."""
        if self.json_length is None:
            return {"Content-Type": "application/json"}
        return {
            "Content-Type": "application/octet-stream",
            JSON_LENGTH_HEADER: str(self.json_length),
        }


def infer(served: Served, body: bytes, json_length: int | str | None = None) -> Reply:
    """Answers one request.

    Args:
        served: the model.
        body: of the request.
        json_length: its header `Inference-Header-Content-Length`, where it has one.

    Returns:
        The response, with status 200; what is wrong with the request, with status 400; or that the
        artefact could not be run, with status 500.
    """
    try:
        request, job = read(served, body, json_length)
        arrays = served.artefact.compute(job.feeds, job.outputs)
        return reply(served, request, job, arrays)
    except ProbegenError as error:
        return refusal(error)


def read(served: Served, body: bytes, json_length: int | str | None = None) -> tuple[Request, Job]:
    """Reads a request and checks it against the model.

    Raises:
        InputError: something in it does not fit; says what, and what would.
    """
    try:
        request = read_request(body, json_length)
        return request, prepare(served, request)
    except RecursionError as error:  # where a message tells what was sent
        raise InputError("the request's JSON is nested too deeply.") from error


def refusal(error: ProbegenError) -> Reply:
    """Returns the answer to a request that could not be served: 400 where that is its own fault."""
    return Reply(400 if isinstance(error, InputError) else 500, write_error(str(error)))


def reply(served: Served, request: Request, job: Job, arrays: Mapping[str, Array]) -> Reply:
    """Returns the answer to a request, made of the outputs of its run."""
    return Reply(200, *write_response(answer(served, request, job, arrays), request))


def answer(served: Served, request: Request, job: Job, arrays: Mapping[str, Array]) -> Response:
    """Returns the response to a request."""
    return Response(
        served.name,
        served.version,
        request.id,
        {name: arrays[name] for name in job.outputs},
    )


def prepare(served: Served, request: Request) -> Job:
    """Checks a request against the model.

    Explanations are computed where `explain` is true; also where it is left out and `outputs` name
    one. They are not where none is wanted.

    Raises:
        InputError: something in it does not fit; says what, and what would.
    """
    artefact = served.artefact
    own = [name for name in OWN if name not in [spec.name for spec in artefact.inputs]]
    asked = _asked(request, own)
    explain, outputs = _wanted(artefact, request, asked.pop(GATE_INPUT, None))
    inputs = {name: array for name, array in request.inputs.items() if name not in own}
    feeds = artefact.prepare(inputs, explain=explain, **asked)
    rows = count_rows(feeds.inputs, artefact.inputs)
    return Job(feeds, outputs, rows, REGION_INPUT in asked)


def _asked(request: Request, own: Sequence[str]) -> dict[str, Any]:
    """Returns what a request says beside the model's inputs, by name.

    Raises:
        InputError: something is said twice, or a name is nearly one of `own`.
    """
    found: dict[str, Any] = {}
    for name, value in request.parameters.items():
        if name in own and value is not None:
            found[name] = value
        elif name not in own and (near := difflib.get_close_matches(name, own, 1, _NEAR)):
            raise InputError(f"there is no parameter {name!r}. Did you mean {near[0]!r}?")
    for name in own:
        if name in request.inputs:
            if name in found:
                raise InputError(f"{name!r} came both as a parameter and as an input.")
            found[name] = request.inputs[name]
    return found


def _wanted(artefact: Artefact, request: Request, given: Any) -> tuple[bool, tuple[str, ...]]:
    """Returns whether explanations are to be computed, and which outputs are answered.

    Raises:
        InputError: there is no such output, or what is asked for contradicts itself.
    """
    manifest = artefact.manifest
    explanations = {spec.name for spec in manifest.explanations}
    known = [spec.name for spec in manifest.outputs]
    for name in request.outputs or ():
        if name not in known:
            raise InputError(f"the model has no output {name!r}.{did_you_mean(name, known)}")
    explain = None if given is None else _truth(given)
    if explain and not explanations:
        raise InputError("explain is true, but the model was compiled without explanations.")
    if request.outputs is None:
        specs = manifest.outputs if explain else manifest.predictions
        return bool(explain), tuple(spec.name for spec in specs)
    named = [name for name in request.outputs if name in explanations]
    if named and explain is False:
        raise InputError(
            f"the output {named[0]!r} is an explanation, and explain is false: leave explain out, "
            "or the output."
        )
    return bool(named), request.outputs


def _truth(given: Any) -> bool:
    """Returns what `explain` says: true or false, as JSON, as text, or as a tensor of one BOOL."""
    value = given.reshape(-1).tolist() if isinstance(given, np.ndarray) else [given]
    word = value[0] if len(value) == 1 else None
    if isinstance(word, str) and word.lower() in ("true", "false"):
        return word.lower() == "true"
    if not isinstance(word, bool):
        raise InputError(f"explain is {str(given)[:40]!a}; expected true or false.")
    return word


def merged(served: Served, jobs: Sequence[Job]) -> Feeds:
    """Returns the feeds of several jobs as one batch; their `batch_key` must be the same."""
    first = jobs[0].feeds
    if len(jobs) == 1:
        return first
    axes = {spec.name: batch_axis(spec.axes) for spec in served.artefact.inputs}
    inputs = {
        name: np.concatenate([job.feeds.inputs[name] for job in jobs], axis=axes[name] or 0)
        for name in first.inputs
    }
    asked = {name: np.concatenate([job.feeds.asked[name] for job in jobs]) for name in first.asked}
    return Feeds(inputs, asked, first.explain)


def divided(
    served: Served, jobs: Sequence[Job], arrays: Mapping[str, Array]
) -> list[dict[str, Array]]:
    """Returns the outputs of one batch, for each of the jobs that it was merged of."""
    if len(jobs) == 1:
        return [dict(arrays)]
    total = sum(job.rows for job in jobs)
    found: list[dict[str, Array]] = [{} for _ in jobs]
    for name, array in arrays.items():
        at = batch_axis(served.artefact.manifest.output(name).axes)
        if at is None or array.shape[at] != total:
            raise ArtefactError(
                f"the output {name!r} has the shape {list(array.shape)} for {total} samples, so "
                "that it cannot be divided among requests."
            )
        ends = np.cumsum([job.rows for job in jobs])[:-1]
        for part, piece in zip(found, np.split(array, ends, axis=at), strict=True):
            part[name] = piece
    return found


def can_be_merged(artefact: Artefact) -> bool:
    """Tells whether several requests may share a batch: each tensor has one, of any size."""
    specs: list[InputSpec | OutputSpec] = [*artefact.inputs, *artefact.outputs]
    places = [batch_axis(spec.axes) for spec in specs]
    return all(at is not None and s.shape[at] is None for s, at in zip(specs, places, strict=True))


def batch_key(served: Served, job: Job) -> tuple[Any, ...]:
    """Returns what jobs of one batch have in common: explained or not, and sizes of a sample."""
    axes = {spec.name: batch_axis(spec.axes) for spec in served.artefact.inputs}
    sizes = [(name, _without(array.shape, axes[name])) for name, array in job.feeds.inputs.items()]
    asked = [(name, array.shape[1:]) for name, array in job.feeds.asked.items()]
    return (job.feeds.explain, *sizes, *asked)


def _without(shape: tuple[int, ...], at: int | None) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(shape) if i != at)
