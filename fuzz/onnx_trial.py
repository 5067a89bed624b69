"""Tries one graph: inspects, compiles, runs, and compares with the untouched graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import probegen as pg
from fuzz.judging import (
    FoundError,
    asked_of,
    check_attribution,
    check_prediction,
    check_rows_alone,
    is_tie,
    limit,
    moved,
    moved_out_of_ties,
)
from fuzz.onnx_case import OnnxCase
from fuzz.onnx_channels import channel_axis
from fuzz.onnx_witness import OnnxWitness
from fuzz.outcome import DIFFERS, EQUAL, INVALID, REFUSED, Outcome, of_error, signature
from probegen import runtime
from probegen.errors import ArtefactError, ProbegenError
from probegen.plan.making import make_plan
from probegen.sources import open_source
from probegen.sources.base import Program

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]


def attempt(case: OnnxCase, verify: bool = False) -> Outcome:
    """Tries a case; whatever happens becomes an outcome.

    Args:
        case: the case.
        verify: let probegen verify the artefact as well.
    """
    try:
        witness = OnnxWitness(case)
        feeds = [case.samples(call) for call in (0, 1)]
        expected = [witness.predictions(feed) for feed in feeds]
        if not all(np.isfinite(y[:1]).all() for found in expected for y in found):
            return Outcome(case.key, INVALID, "not finite on an ordinary sample")
    except Exception as error:  # what onnxruntime does not run says nothing of probegen
        return Outcome(case.key, INVALID, signature(error))
    stage = "inspect"
    try:
        source = open_source(case.model)
        str(source.view.points)
        stage = "plan"
        plan, kept, refused = planned(source, case.probes)
        options = {name: eval(code, {}) for name, code in case.options.items()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            stage = "compile"
            if verify:  # all of it, as users have it
                pg.compile(case.model, kept, path, **options)
            else:
                pg.export(Program(source, plan), path, verify=False, **options)
            stage = "run"
            try:
                art = runtime.load(path, threads=1)
            except ArtefactError as error:  # as the export says that is verified
                if verify or _NO_KERNEL not in str(error):
                    raise
                return Outcome(case.key, REFUSED, signature(error))
            stage = "compare"
            witnessed = sum(
                _compared(art, witness, kept, feed, y)
                for feed, y in zip(feeds, expected, strict=True)
            )
    except FoundError as error:
        return Outcome(case.key, DIFFERS, str(error))
    except Exception as error:
        return of_error(case.key, error, stage, excused=_NO_KERNEL)
    return Outcome(case.key, EQUAL, "; ".join(refused), witnessed=witnessed)


#: What an error says where onnxruntime has no such operator in another type.
_NO_KERNEL = "lacks an operator for this element type"


def planned(source: Any, probes: Sequence[str]) -> tuple[Any, list[Any], list[str]]:
    """Returns a plan, the probes of it, and why the others do not suit the graph."""
    kept: list[Any] = []
    refused = []
    plan = make_plan(source.view, ())
    for code in probes:
        try:
            probe = eval(code, {"pg": pg, "np": np})
            plan = make_plan(source.view, (*kept, probe))
        except ProbegenError as error:
            refused.append(signature(error))
        else:
            kept.append(probe)
    return plan, kept, refused


def _compared(
    art: Any, witness: OnnxWitness, probes: Sequence[Any], feed: Feed, expected: Sequence[Array]
) -> int:
    """Compares one batch; returns how many attributions a witness knew.

    Raises:
        FoundError: something is not what it should be.
    """
    policy = witness.policy()
    for spec in art.manifest.predictions:
        if "class" in spec.axes:
            witness.class_axes[spec.name] = spec.axes.index("class")
    named = {spec.name: feed[spec.name] for spec in art.inputs}
    asked = asked_of(art.manifest, named)
    result = art.run(named, **asked)
    plain = art.run(named, explain=False)
    for at, (spec, y) in enumerate(zip(art.manifest.predictions, expected, strict=True)):
        known = _known_rows(witness, feed, len(y))  # of some the first axis is not the batch

        def again(draw: int, at: int = at, known: Array = known) -> Array:
            noisy = dict(zip(feed, moved(list(feed.values()), policy, draw), strict=True))
            return np.asarray(witness.predictions(noisy)[at], np.float64)[known]

        for found, where in ((result, ""), (plain, " without explanation")):
            got = np.asarray(found[spec.name].array)[known]
            check_prediction(f"{spec.name}{where}", got, y[known], policy, again)

    def is_undecided(spec: Any) -> bool:
        return _is_undecided(witness, spec, feed)

    logits = [witness.tensor(output.scores, feed) for output in witness.case.outputs]
    check_rows_alone(art, named, result, policy, asked, is_undecided, logits)
    return sum(
        _same_attribution(art, witness, probes, spec, feed, result, asked)
        for spec in art.manifest.explanations
    )


def _is_undecided(witness: OnnxWitness, spec: Any, feed: Feed) -> bool:
    """Tells whether some of the channels of a layer are as good as each other in the first sample.

    Each is a sum over positions: of a softmax over these it is 1 of them all.
    """
    of = spec.target
    layer = witness.of_path(of.layer) if of is not None and of.layer and not of.call else None
    if layer is None:
        return False
    made = witness.tensor(layer, feed)[0].astype(np.float64)
    for channel in {0, made.ndim - 1} if made.ndim else ():
        sums = np.sort(made.sum(axis=tuple(i for i in range(made.ndim) if i != channel)))
        if any(is_tie(pair, witness.policy()) for pair in np.stack([sums[:-1], sums[1:]], axis=1)):
            return True
    return False


def _known_rows(witness: OnnxWitness, feed: Feed, rows: int) -> Array:
    """Tells which rows of a tensor are known.

    float16 is computed in float32 here and there: where it has infinities is for fusions to say.
    What a maximum makes of NaN is so for kernels.
    """
    unknown = witness.loses_nan(feed)
    if witness.policy() == "float16":
        unknown = unknown | witness.beyond_range(feed)
    return ~unknown if len(unknown) == rows else np.ones(rows, bool)


def _same_attribution(
    art: Any,
    witness: OnnxWitness,
    probes: Sequence[Any],
    spec: Any,
    feed: Feed,
    result: Any,
    asked: Mapping[str, Array],
) -> bool:
    """Compares an output with the witness; returns whether that knew it.

    Raises:
        FoundError: it is not what the witness says.
    """
    own = [probe for probe in probes if probe.kind == spec.kind]
    if len(own) != 1 or isinstance(getattr(own[0], "output", None), str):
        return False  # what could be the output of several probes
    (probe,) = own
    policy = witness.policy()
    if spec.kind == "activation":
        return _same_activation(witness, probe, spec, feed, result, policy)
    if not hasattr(probe, "logits"):
        return False
    axes: tuple[str, ...]
    if spec.layer and (found := witness.of_path(spec.layer)):
        explained = found
        axes = ()
    elif spec.input and not spec.layer:
        explained = spec.input
        axes = next(i.axes for i in art.inputs if i.name == explained)
    else:
        return False
    hidden = [i for i, axis in enumerate(axes) if axis not in spec.axes]
    channel = channel_axis(witness.case.model, explained, len(axes)) if hidden else None
    if hidden and channel is None:
        return False  # no reader tells which axis is to be hidden
    if hidden and hidden != [channel]:
        raise FoundError(f"{spec.kind} has no axes {hidden} of {explained}, expected [{channel}]")
    if spec.kind in _MAPS:
        channel = _channel_of(witness, explained, spec, feed)
        if channel is None:
            return False

    known = witness.attribution(probe, feed, explained, channel, asked)
    if known is None or not np.isfinite(known.array).any():
        return False

    def right(fed: Feed) -> Array | None:
        again = witness.attribution(probe, fed, explained, channel, asked)
        if again is None or (probe.kind == "saliency" and not axes):
            return None
        array = again.array
        if probe.kind != "saliency":
            return array
        before = array.ndim - len(axes)  # an axis of several targets
        return np.asarray(array.max(axis=tuple(before + i for i in hidden)))

    expected = right(feed)
    if expected is None or not np.isfinite(expected).any():
        return False

    def again(draw: int) -> Array | None:
        return right(dict(zip(feed, moved(list(feed.values()), policy, draw), strict=True)))

    def beside(draw: int) -> tuple[Array, Array | None]:
        there = dict(zip(feed, moved_out_of_ties(list(feed.values()), draw), strict=True))
        made = art.run({i.name: there[i.name] for i in art.inputs}, **asked)
        return made[spec.name].array, right(there)

    what = f"{spec.kind} of {type(probe).__name__}"
    most = _BY_DIFFERENCES[known.wide]
    got = result[spec.name].array
    check_attribution(what, got, expected, policy, again, beside, most, _SHORTEST)
    return True


#: What attributions may be off by, relative to their length, by whether the witness has float64;
#: and what counts as their length where they are shorter: differences tell no more.
_BY_DIFFERENCES, _SHORTEST = {True: 1e-3, False: 3e-2}, 1e-2
_MAPS = frozenset({"grad_cam", "hires_cam", "layer_cam"})


def _channel_of(witness: OnnxWitness, tensor: str, spec: Any, feed: Feed) -> int | None:
    """Returns the axis of a layer's channels: the one that its map has not, if that is told."""
    sizes = witness.tensor(tensor, feed).shape
    node = next(n for n in witness.case.model.graph.node if tensor in n.output)
    if node.op_type not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        return None
    return 1 if len(sizes) - 1 == len(spec.axes) or "class" in spec.axes else None


def _same_activation(
    witness: OnnxWitness, probe: Any, spec: Any, feed: Feed, result: Any, policy: str
) -> bool:
    if probe.reduce is not None or probe.channels is not None or not spec.layer:
        return False
    tensor = witness.of_path(spec.layer)
    if tensor is None:
        return False
    made = next(list(n.output) for n in witness.case.model.graph.node if tensor in n.output)
    if (at := spec.name.rpartition(f"{spec.layer}:")[2]).isdigit():
        tensor = made[int(at)]  # of a layer with several outputs
    got, right = result[spec.name].array, witness.tensor(tensor, feed)
    if np.asarray(got).shape != right.shape:
        return False  # samples told apart that the graph joins
    dtype = probe.dtype or right.dtype.name
    coarse = max(dtype, policy, key=limit)

    def again(draw: int) -> Array:
        noisy = dict(zip(feed, moved(list(feed.values()), policy, draw), strict=True))
        return np.asarray(witness.tensor(tensor, noisy).astype(dtype), np.float64)[known]

    known = _known_rows(witness, feed, len(right))
    got, right = np.asarray(got)[known], right[known].astype(dtype)

    check_prediction(f"activation {spec.layer}", got, right, coarse, again)
    return True
