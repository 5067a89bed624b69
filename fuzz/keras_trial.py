"""Tries one case: inspects, compiles, runs, and compares with the untouched model."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import numpy.typing as npt

import probegen as pg
from fuzz.case import Case, namespace
from fuzz.judging import (
    GRADIENTS,
    SMALL_PART,
    FoundError,
    asked_of,
    check_attribution,
    check_prediction,
    check_rows_alone,
    is_tie,
    limit,
    moved,
    moved_out_of_ties,
    noise,
    off,
)
from fuzz.keras_inputs import VOCABULARY, WORDS
from fuzz.keras_slopes import Shown, check_slopes, in_double
from fuzz.keras_states import is_stateful, stateful
from fuzz.keras_wider import Wider, computed_in
from fuzz.keras_witness import Explained, Witness, is_turned
from fuzz.outcome import DIFFERS, EQUAL, INVALID, REFUSED, Outcome, of_error, signature
from probegen import runtime
from probegen.artefact.manifest import COMPLETENESS
from probegen.errors import ArtefactError, InputError, ProbegenError
from probegen.methods.axes import channel_axis
from probegen.methods.by_scores import ByScores
from probegen.plan.making import make_plan
from probegen.sources import computing_in, open_source
from probegen.sources.base import Program

Array = npt.NDArray[Any]
#: A witness and inputs -> what is right; None where it does not know.
_Right = Callable[[Witness, Sequence[Array]], Array | None]

#: A policy whose models are computed in float32, as `pg.compile(precision="float32")` does: in
#: bfloat16 onnxruntime runs next to nothing.
_BFLOAT16 = "mixed_bfloat16"
_BATCHES, _SIZES = (3, 5), (6, 9)
#: A share of how far predictions may be apart, by which a sample alone may differ.
_ALONE = 0.1
_MIXED = "answers by what else is in the batch"
#: What probegen says of a model that answers by where in the batch a sample stands: alone, the
#: first one is predicted as it is there. And of explanations that change with the other samples.
_TOLD = re.compile("where among them a sample stands|depends on the other samples")
#: What the length of an attribution counts as, where it is shorter: rounding of gradients that
#: cancel out.
_SHORTEST = 1e-3
#: What an error says where onnxruntime has no such operator in float64 or bfloat16.
_NO_KERNEL = "lacks an operator for this element type"
#: What an artefact says of inputs that its windows leave nothing of.
_TOO_SHORT = "at least: with fewer nothing is left"
#: A fusion of onnxruntime that takes a scale away which another product of matrices still reads.
_RUNTIMES_OWN = "MatMulScaleFusion"


#: What artefacts are loaded with, by their format.
_THREADS: Mapping[str, Mapping[str, Any]] = {"onnx": {"threads": 1}, "savedmodel": {}}


def build(case: Case) -> dict[str, Any]:
    """Runs the lines of a case; returns its variables, `model` and `logits` among them.

    Raises:
        Exception: Keras does not want it.
    """
    keras.backend.clear_session(free_memory=False)
    values = namespace()
    for setting in case.setting():
        exec(setting, values)
    for line in case.lines:
        values[line.name] = eval(line.code, values)
    for ending in case.closing()[:-1]:
        exec(ending, values)
    # Keras flattens dicts in an order of its own.
    names = keras.tree.flatten({n: n for n in case.outputs}) if case.by_name else case.outputs
    values["logits"] = [eval(case.logits[name], values) for name in names]
    values["options"] = {name: eval(code, values) for name, code in case.options.items()}
    return values


def samples(model: Any, call: int) -> list[Array]:
    """Returns one of two batches of hard samples: other batch where it is open, other open sizes.

    Rows: ordinary, zeros (padding), ties and negatives; the larger batch also large values and
    rows that are padded behind.
    """
    rng = np.random.default_rng(call)
    found = []
    for tensor in model.inputs:
        sizes = [_SIZES[call] if s is None else s for s in tensor.shape[1:]]
        shape = (tensor.shape[0] or _BATCHES[call], *sizes)
        dtype = str(tensor.dtype)
        x: Array
        if dtype == "string":
            found.append(_strings(rng, shape))
            continue
        if keras.backend.is_float_dtype(dtype):
            x = rng.normal(0.2, 1.0, shape)
            x[1] = 0.0
            x[2] = np.round(x[2])
            if len(x) > 3:
                x[3] *= 20.0
                x[4, max(1, len(x[4]) // 2) :] = 0.0
        else:
            high = 256 if dtype == "uint8" else VOCABULARY
            x = rng.integers(1, high, shape).astype(dtype)
            x[1] = 0
            x[2] = 3
            if len(x) > 3:
                x[4, max(1, len(x[4]) // 2) :] = 0
        found.append(x.astype("float32" if dtype == "bfloat16" else dtype))
    return found


def _strings(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Returns texts where there is one a sample, else a word at each place."""
    if len(shape) > 1:
        words = rng.choice(WORDS, shape)
        words[1] = ""
        return words.astype(object)
    texts = [" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 8, shape[0])]
    texts[1] = "The, CAT?"
    return np.array(texts, object)


def attempt(
    case: Case,
    formats: Sequence[str] = ("onnx",),
    verify: bool = True,
    inspect: bool = False,
    differences: bool = False,
) -> Outcome:
    """Tries a case; whatever happens becomes an outcome.

    Args:
        case: the case.
        formats: what it is written as.
        verify: let probegen verify the artefact as well, as users do.
        inspect: let probegen inspect the model before.
        differences: hold input gradients against differences in float64 as well.
    """
    try:
        built = build(case)
    except Exception as error:  # a model that Keras itself does not want says nothing of probegen
        return Outcome(case.key, INVALID, signature(error))
    if case.policy != _BFLOAT16 or "onnx" not in formats:
        return _attempt(case, built, formats, verify, inspect, differences)
    with computing_in(built["model"], "float32"):
        case = dataclasses.replace(case, policy="float32")
        return _attempt(case, built, formats, verify, inspect, differences)


def _attempt(
    case: Case,
    built: Mapping[str, Any],
    formats: Sequence[str],
    verify: bool,
    inspect: bool,
    differences: bool,
) -> Outcome:
    """Tries a case whose model is built; see `attempt`."""
    model = built["model"]
    try:
        witnesses, feeds, coarsest = _witnesses(case, built)
        witness = witnesses[0]
        expected = [w.predictions(feed) for w, feed in zip(witnesses, feeds, strict=True)]
        if not all(np.isfinite(y[[0]]).all() for found in expected for y in found):
            return Outcome(case.key, INVALID, "not finite on an ordinary sample")
        if _mixes_samples(witness, feeds[0], expected[0], coarsest):
            return Outcome(case.key, INVALID, _MIXED)
    except Exception as error:  # nor does one that it cannot call
        return Outcome(case.key, INVALID, signature(error))
    stage = "inspect"
    try:
        if inspect:
            str(pg.inspect(model))
        source = open_source(model)
        str(source.view.points)
        stage = "plan"
        plan, kept, refused = _planned(source, case.probes, built)
        with tempfile.TemporaryDirectory() as folder:
            for format_ in formats:
                path = Path(folder) / ("m.onnx" if format_ == "onnx" else "saved")
                options = built["options"] if format_ == "onnx" else {}
                stage = "compile"
                witness.states.reset()
                if verify:
                    pg.compile(model, kept, path, **options)
                else:
                    _written(Program(source, plan), (model, kept), path, options)
                stage = "run"
                try:
                    art = runtime.load(path, **_THREADS[format_])
                except ArtefactError as error:
                    if verify or _NO_KERNEL not in str(error):
                        raise
                    return Outcome(case.key, REFUSED, signature(error))
                stage = "compare"
                wider = Wider(case, build, built)
                _check_states_are_kept(witness)
                runs: list[_Run] = []
                for told, feed, y in zip(witnesses, feeds, expected, strict=True):
                    before = runs[0].result.states if runs else {}
                    runs.append(_compared(art, told, feed, y, coarsest, wider, before))
                witnessed = sum(_same_explanations(run, kept) for run in runs)
                wide = in_double(case, build, built, feeds[0], expected[0]) if differences else None
                if wide is not None:  # which starts from no states
                    steady = runs[:1] if "states" in case.options else runs
                    witnessed += sum(_same_slopes(run, kept, wide) for run in steady)
    except Exception as error:
        differs = isinstance(error, FoundError)
        # The loudest sample may tell what is silence in the others: each row is asked only here.
        if (differs or _TOLD.search(str(error))) and _mixes_any(
            witnesses, feeds, expected, coarsest
        ):
            return Outcome(case.key, INVALID, _MIXED)
        if differs:
            return Outcome(case.key, DIFFERS, str(error))
        if isinstance(error, ArtefactError) and _RUNTIMES_OWN in str(error):
            return Outcome(case.key, REFUSED, signature(error))
        if isinstance(error, InputError) and _TOO_SHORT in str(error) and _of_nothing(expected):
            return Outcome(case.key, REFUSED, signature(error))
        return of_error(case.key, error, stage, excused=_NO_KERNEL)
    return Outcome(case.key, EQUAL, "; ".join(refused), witnessed=witnessed)


def _witnesses(
    case: Case, built: Mapping[str, Any]
) -> tuple[list[Witness], list[list[Array]], str]:
    """Returns who knows better of each of two batches, the batches, and what is computed in.

    Where states are fed the second batch goes on from where the states of the first one ended.
    """
    core, logits, model = built["core"], built["logits"], built["model"]
    if "states" in case.options and not is_stateful(case):
        kept = build(stateful(case))
        kept["core"].set_weights(core.get_weights())
        core, logits, model = kept["core"], kept["logits"], kept["model"]
    witness = Witness(core, logits, model)
    feeds = [samples(core, call) for call in (0, 1)]
    coarsest = computed_in(case.policy, witness, feeds[0])
    if "states" in case.options:
        return [witness, witness.behind(feeds[0])], feeds, coarsest
    # What an artefact starts from is where the states are when it is made.
    rng = np.random.default_rng(5)
    witness.states.start = [
        rng.normal(0, 0.5, x.shape).astype(x.dtype) for x in witness.states.start
    ]
    return [witness] * 2, feeds, coarsest


def _of_nothing(expected: Sequence[Sequence[Array]]) -> bool:
    """Tells whether a model leaves nothing of some batch, or makes means of nothing."""
    floats = [y for each in expected for y in each if y.dtype.kind in "fV"]
    empty = any(y.size == 0 for each in expected for y in each)
    return empty or any(not np.isfinite(y.astype(np.float64)).all() for y in floats)


def _check_states_are_kept(witness: Witness) -> None:
    """Looks whether the states of the model are what they were before it was compiled.

    Raises:
        FoundError: they are not.
    """
    pairs = zip(witness.states.now(), witness.states.start, strict=True)
    if not all(np.array_equal(now, start) for now, start in pairs):
        raise FoundError("the states of the model were moved by compiling it")


def _mixes_samples(
    witness: Witness,
    feed: Sequence[Array],
    expected: Sequence[Array],
    policy: str,
    row: int = 0,
) -> bool:
    """Tells whether a sample alone has other predictions than in a batch."""
    only, alone = slice(row, row + 1), witness.alone(feed, row)
    return any(
        one.shape != whole[only].shape or off(one, whole[only]) > _ALONE * limit(policy)
        for one, whole in zip(alone, expected, strict=True)
    )


def _mixes_any(
    witnesses: Sequence[Witness],
    feeds: Sequence[Sequence[Array]],
    expected: Sequence[Sequence[Array]],
    policy: str,
) -> bool:
    """Tells whether any sample of some batches is another one alone or among copies of itself.

    Alone it may have other predictions, among copies other slopes: a maximum over all samples hands
    gradients on to the loudest of them.
    """
    return any(
        _mixes_samples(told, feed, y, policy, row) or _mixes_slopes(told, feed, policy, row)
        for told, feed, y in zip(witnesses, feeds, expected, strict=True)
        for row in range(len(feed[0]))
    )


def _mixes_slopes(witness: Witness, feed: Sequence[Array], policy: str, row: int) -> bool:
    """Tells whether scores of a sample or their slopes are others among copies of it."""
    same = [np.repeat(x[row : row + 1], len(x), axis=0) for x in feed]
    try:
        pairs = zip(witness.slopes_of_all(feed), witness.slopes_of_all(same), strict=True)
    except Exception:  # what TensorFlow has no gradient of tells nothing
        return False

    def apart(here: Array, there: Array) -> bool:
        """Slopes that are tiny because all is saturated are seen at their own size."""
        size = float(np.nan_to_num(np.abs(here), posinf=0).max(initial=0)) or 1.0
        return off(there / size, here / size) > GRADIENTS * limit(policy)

    return any(
        len(there) == len(here) and apart(*(x[row].astype(np.float64) for x in (here, there)))
        for here, there in pairs
    )


def _written(
    program: Program, whole: tuple[Any, Sequence[Any]], path: Path, options: Mapping[str, Any]
) -> None:
    """Writes an artefact that nobody verifies; rows are run alone here, and not asked for twice.

    With states among the inputs it is planned anew, of the whole: the model and the probes.
    """
    with mock.patch("probegen.compiler.warn_of_mixed_samples"):
        if "states" not in options:
            pg.export(program, path, verify=False, **options)
        else:
            pg.compile(*whole, path, verify=False, **options)


def _planned(
    source: Any, probes: Sequence[str], values: Mapping[str, Any]
) -> tuple[Any, list[Any], list[str]]:
    """Returns a plan, the probes of it, and why the others do not suit the model."""
    kept: list[Any] = []
    refused = []
    plan = make_plan(source.view, ())
    for code in probes:
        try:
            probe = eval(code, dict(values))
            plan = make_plan(source.view, (*kept, probe))
        except ProbegenError as error:
            refused.append(signature(error))
        else:
            kept.append(probe)
    return plan, kept, refused


def _compared(
    art: Any,
    witness: Witness,
    feed: Sequence[Array],
    expected: Sequence[Array],
    policy: str,
    wider: Wider,
    before: Mapping[str, Array],
) -> _Run:
    """Compares the predictions of one batch; returns what was said of it.

    Args:
        art: the artefact.
        witness: tells what its model says.
        feed: the inputs.
        expected: what the model predicts.
        policy: the precision that it computes in.
        before: the states that the artefact starts from, where it takes such.

    Raises:
        FoundError: something is not what it should be.
    """
    named = {spec.name: x for spec, x in zip(_own_inputs(art), feed, strict=True)} | dict(before)
    asked = asked_of(art.manifest, named)
    result = art.run(named, **asked)
    plain = art.run(named, explain=False)
    run = _Run(art, witness, feed, asked, result, policy, wider, before)
    own = [spec for spec in art.manifest.predictions if not spec.is_state]
    for at, (spec, y) in enumerate(zip(own, expected, strict=True)):
        named_so = [i for i, axis in enumerate(spec.axes) if axis in ("class", "unit")]
        witness.class_axes[at] = named_so[0] if named_so else y.ndim - 1

        def right(asked_of: Witness, fed: Sequence[Array], at: int = at) -> Array:
            return np.asarray(asked_of.predictions(fed)[at], np.float64)

        for found, where in ((result, ""), (plain, " without explanation")):
            got = _in_range(np.asarray(found[spec.name].array), y, policy)
            check_prediction(
                f"{spec.name}{where}", got, y, policy, run.noisy(right), run.wider_one(right)
            )
    check_rows_alone(art, named, result, policy, asked, run.is_undecided)
    _check_ends(run)
    return run


def _in_range(got: Array, right: Array, policy: str) -> Array:
    """Returns what came out, with what is right in rows that are not finite in a coarse type.

    float16 is computed in float32 here and there: where it has infinities is for fusions to say.
    """
    if "16" not in policy or got.shape != right.shape:
        return got
    wide = right.astype(np.float64)
    beyond = ~np.isfinite(wide.reshape(len(wide), -1)).all(axis=1)
    return np.where(beyond.reshape(-1, *[1] * (wide.ndim - 1)), wide, got)


def _check_ends(run: _Run) -> None:
    """Compares where states ended.

    Raises:
        FoundError: they ended elsewhere.
    """
    for spec in run.art.manifest.predictions:
        name = spec.name.rpartition("/")[2]
        if not spec.is_state or name not in run.witness.states.ends():
            continue

        def right(asked_of: Witness, fed: Sequence[Array], name: str = name) -> Array:
            asked_of.predictions(fed)
            return asked_of.states.ends()[name]

        expected, got = right(run.witness, run.feed), run.array(spec)
        check_prediction(
            spec.name, got, expected, run.policy, run.noisy(right), run.wider_one(right)
        )


def _own_inputs(art: Any) -> list[Any]:
    """Returns the inputs of an artefact that are its model's."""
    return [spec for spec in art.inputs if spec.next_state is None]


def _same_explanations(run: _Run, probes: Sequence[Any]) -> int:
    """Compares the explanations of one batch; returns how many a witness knew.

    Raises:
        FoundError: one is not what it should be.
    """
    return sum(_same_explanation(run, probes, spec) for spec in run.art.manifest.explanations)


def _same_slopes(run: _Run, probes: Sequence[Any], wide: Witness) -> int:
    """Compares gradients of inputs with differences; returns how many are known.

    Raises:
        FoundError: one is no slope.
    """
    known = 0
    own = [probe for probe in probes if probe.kind == "input_gradient"]
    for spec in run.art.manifest.explanations if len(own) == 1 else ():
        is_told = spec.kind == "input_gradient" and not isinstance(own[0].output, str)
        explained = _explained(run, own[0], spec) if is_told and spec.layer is None else None
        if explained is None or explained.at is None:
            continue
        if not np.issubdtype(run.feed[explained.at].dtype, np.floating):
            continue  # strings and ids have no slopes

        def taped(
            asked_of: Witness, feed: Sequence[Array], explained: Explained = explained
        ) -> Array | None:
            return asked_of.attribution(own[0], feed, explained, run.asked)

        def given(feed: Sequence[Array], name: str = spec.name) -> Array:
            return np.asarray(run.said(feed)[name].array)

        here, noisy = taped(run.witness, run.feed), run.noisy(taped)
        policy = run.wider.policy
        shown = Shown(own[0], run.feed, run.asked, explained.at, given, here, noisy, policy)
        known += check_slopes("input_gradient beside differences", shown, wide)
    return known


@dataclasses.dataclass(frozen=True)
class _Run:
    """What an artefact said of one batch, and who knows better.

    Attributes:
        art: the artefact.
        witness: tells what its model says.
        feed: the inputs.
        asked: the targets, regions and groups.
        result: what came out.
        policy: the coarsest precision that the model computes in.
        wider: tells what the model says in a wider type.
        before: the states that the artefact started from.
    """

    art: Any
    witness: Witness
    feed: Sequence[Array]
    asked: Mapping[str, Array]
    result: Any
    policy: str
    wider: Wider
    before: Mapping[str, Array]

    def noisy(self, right: _Right, policy: str | None = None) -> Callable[[int], Array | None]:
        """Returns what tells what is right under noise of the size of rounding, by its number."""
        coarse = self.policy if policy is None else policy

        def again(draw: int) -> Array | None:
            with self.witness.shaken(draw, noise(coarse)):
                return right(self.witness, moved(self.feed, coarse, draw))

        return again

    def wider_one(self, right: _Right) -> Callable[[], Array | None]:
        """Returns what tells what is right in a wider type."""
        return lambda: self.wider.says(right, self.feed, self.witness)

    def said(self, feed: Sequence[Array]) -> Any:
        """Returns what comes out for other inputs."""
        named = {i.name: x for i, x in zip(_own_inputs(self.art), feed, strict=True)}
        return self.art.run(named | dict(self.before), **self.asked)

    def is_undecided(self, spec: Any) -> bool:
        """Tells whether two channels of a layer are the best one of the first sample.

        Each is a sum over positions, which a runtime adds up in another order for one sample.
        """
        of = spec.target
        layer = None if of is None or of.call or not of.layer else self.witness.layer(of.layer)
        if layer is None or of.mode != "argmax":
            return False
        made = self.witness.activation(layer, self.feed)[0].astype(np.float64)
        channel = 0 if is_turned(layer) else made.ndim - 1
        sums = made.sum(axis=tuple(i for i in range(made.ndim) if i != channel))
        return is_tie(sums, self.policy)

    def rounded_away(self, probe: Any) -> Array:
        """Returns the length of each row below which differences of scores are their rounding.

        That of the largest prediction, and of what the row's own scores are summed of.
        """
        scores = [np.asarray(self.result[s.name].array) for s in self.art.manifest.predictions]
        largest = max(float(np.nan_to_num(np.abs(y), posinf=0).max(initial=0)) for y in scores)
        summed = self.witness.sizes_of_scores(probe, self.feed, self.asked)
        own = np.zeros(len(self.feed[0])) if summed is None else np.nan_to_num(summed, posinf=0)
        share = max(SMALL_PART, limit(self.policy) / 5)
        return np.asarray(share * np.maximum(largest, own))

    def array(self, spec: Any) -> Array:
        """Returns what came out for an output."""
        return np.asarray(self.result[spec.name].array)


def _same_explanation(run: _Run, probes: Sequence[Any], spec: Any) -> bool:
    """Compares an explanation; returns whether a witness knew it.

    Raises:
        FoundError: it is not what the witness says.
    """
    kinds = {other.name: other.kind for other in run.art.manifest.explanations}
    kind = kinds[spec.detail["of"]] if spec.kind == COMPLETENESS else spec.kind
    own = [probe for probe in probes if probe.kind == kind]
    if len(own) != 1 or isinstance(getattr(own[0], "output", None), str):
        return False  # what could be the output of several probes
    (probe,) = own
    if spec.kind == "activation":
        return _same_activation(run, probe, spec)
    if spec.kind == COMPLETENESS:
        return _adds_up(run, probe, spec)
    explained = _explained(run, probe, spec)
    if explained is None:
        return False

    def right(asked_of: Witness, fed: Sequence[Array]) -> Array | None:
        found = asked_of.attribution(probe, fed, explained.in_model(asked_of), run.asked)
        if found is None:
            return None
        if probe.kind == "saliency":
            found = found.max(axis=tuple(i + spec.target.several for i in explained.hidden))
        return _in_type(np.asarray(found), spec.dtype)

    expected = right(run.witness, run.feed)
    if expected is None:
        return False

    def beside(draw: int) -> tuple[Array, Array | None]:
        there = moved_out_of_ties(run.feed, draw)
        return run.said(there)[spec.name].array, right(run.witness, there)

    coarse = _coarser(run.policy, spec.dtype)
    check_attribution(
        f"{spec.kind} of {type(probe).__name__}",
        run.array(spec),
        expected,
        coarse,
        run.noisy(right, coarse),
        beside,
        shortest=np.maximum(
            run.rounded_away(probe) if isinstance(probe, ByScores) else 0.0,
            0.0 if run.policy == "float64" else _SHORTEST,
        ),
        wider=run.wider_one(right),
    )
    return True


def _adds_up(run: _Run, probe: Any, spec: Any) -> bool:
    """Compares what is missing to completeness; returns whether a witness knew it.

    Raises:
        FoundError: something else is missing.
    """
    whole = np.asarray(run.result[spec.detail["of"]].array, np.float64)
    gained = None if spec.layer else run.witness.gained(probe, run.feed, run.asked)
    if gained is None:
        return False
    axes = tuple(range(gained.ndim, whole.ndim))
    missing = run.array(spec) - (whole.sum(axis=axes) - gained)
    size = np.abs(whole).sum(axis=axes) + np.abs(gained) + 1
    if (np.abs(missing) > GRADIENTS * limit(run.policy) * size).any():
        raise FoundError(f"{spec.kind} of {type(probe).__name__} is off by {missing.max():.1e}")
    return True


def _same_activation(run: _Run, probe: Any, spec: Any) -> bool:
    """Compares what a layer gives; returns whether a witness knew it.

    Raises:
        FoundError: it is something else.
    """
    layer = None if spec.call else run.witness.layer(spec.layer)
    if layer is None or probe.reduce is not None or probe.channels is not None:
        return False

    def right(asked_of: Witness, fed: Sequence[Array]) -> Array:
        own = asked_of.model.get_layer(layer.name)
        return _in_type(np.asarray(asked_of.activation(own, fed), np.float64), spec.dtype)

    coarse = _coarser(run.policy, spec.dtype)
    expected = right(run.witness, run.feed)
    check_prediction(
        f"activation {spec.layer}",
        _in_range(run.array(spec), expected, coarse),
        expected,
        coarse,
        run.noisy(right),
        run.wider_one(right),
    )
    return True


def _in_type(right: Array, dtype: str) -> Array:
    """Returns what is right as an output holds it: float16 is infinite above 65504."""
    with np.errstate(over="ignore"):
        return right.astype(np.float16).astype(np.float64) if dtype == "float16" else right


def _coarser(policy: str, dtype: str) -> str:
    """Returns the coarser type of what computes and what is given out."""
    return max(policy, dtype, key=limit) if "float" in dtype else policy


def _explained(run: _Run, probe: Any, spec: Any) -> Explained | None:
    """Returns what an output explains; None where that is not told."""
    found = _place_of(run, probe, spec)
    of_kind = [other for other in run.art.manifest.explanations if other.kind == spec.kind]
    return None if found is None else dataclasses.replace(found, is_alone=len(of_kind) == 1)


def _place_of(run: _Run, probe: Any, spec: Any) -> Explained | None:
    """Returns where what an output explains lies; None where that is not told."""
    if spec.target is None:
        return None
    names = [explained.name for explained in _own_inputs(run.art)]
    if spec.layer is None:
        # What whole numbers become inside of the model has a name of its own, below the input's.
        if spec.input not in names or f"/{spec.input}/" in spec.name:
            return None
        at = names.index(spec.input)
        axes = run.art.inputs[at].axes
        return Explained(at, hidden=tuple(i for i, a in enumerate(axes) if a not in spec.axes))
    layer = None if spec.call else run.witness.layer(spec.layer)
    of_inputs = _names(getattr(probe, "wrt", "")) <= {"input", *names}
    is_cast = of_inputs and not isinstance(layer, keras.layers.Embedding)
    if layer is None or is_cast:  # what is explained of a cast lies inside of the layer
        return None
    shape = run.witness.activation(layer, run.feed).shape
    of_input = channel_axis(run.art.inputs[0].axes) if len(names) == 1 else None
    got = run.array(spec)
    left = (got.shape[0], *got.shape[2:]) if spec.target.several else got.shape
    if len(left) == len(shape):
        return Explained(None, layer)
    # The axis that is gone is that of the channels; which one it is, sizes may leave open.
    gone = [i for i in range(1, len(shape)) if (*shape[:i], *shape[i + 1 :]) == left]
    usual = 1 if is_turned(layer) else len(shape) - 1
    if gone != [usual] and not (usual in gone and hasattr(layer, "data_format")):
        return None
    return Explained(None, layer, (usual,), of_input)


def _names(selector: Any) -> set[Any]:
    """Returns what a selector lists."""
    return set(selector) if isinstance(selector, list) else {selector}
