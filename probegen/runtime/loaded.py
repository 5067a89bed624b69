"""The loaded artefact: says what it holds, takes inputs, returns a decoded result."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    GATE_INPUT,
    GATE_SPLIT,
    GROUPS_INPUT,
    REGION_INPUT,
    TARGET_INPUT,
    InputSpec,
    Manifest,
    OutputSpec,
)
from probegen.artefact.rows import BATCH, batch_axis, count_rows, some_rows
from probegen.artefact.texts import TOO_FEW_WORDS
from probegen.errors import ArtefactError, InputError, ProbegenError
from probegen.runtime.engines.base import Engine
from probegen.runtime.engines.split import SplitEngine
from probegen.runtime.feeds import Feeds
from probegen.runtime.groups import check_groups
from probegen.runtime.inputs import Array, Inputs, describe
from probegen.runtime.interface import check_interface
from probegen.runtime.region import check_region
from probegen.runtime.request import checked_explain
from probegen.runtime.result import Result
from probegen.runtime.run import Run
from probegen.runtime.states import States, checked_with_states
from probegen.runtime.target import Target, check_target
from probegen.runtime.texts import Texts
from probegen.runtime.times import Times
from probegen.runtime.times import check as check_times
from probegen.stages import cause, stage
from probegen.text import indented_table


@dataclasses.dataclass(frozen=True)
class Artefact:
    """A model with its explanations, loaded and ready to run; made by `runtime.load`.

    Attributes:
        manifest: what the artefact holds and how to read it.
        engine: what runs it.
        path: where it was loaded from.
    """

    manifest: Manifest
    engine: Engine
    path: str

    @classmethod
    def of(
        cls,
        engine: Engine,
        path: str,
        open_second: Callable[[Manifest], Engine] | None = None,
    ) -> Artefact:
        """Reads the manifest of an opened graph, and holds the two against each other.

        Args:
            engine: the graph.
            path: where it was loaded from.
            open_second: opens the graph that explains, where that is another one; takes the
                manifest.

        Raises:
            ArtefactError: they do not belong together.
            ManifestError: the manifest is damaged or of a newer schema.
        """
        manifest = Manifest.from_json(engine.manifest_text)
        if manifest.gate != GATE_SPLIT:
            check_interface(path, manifest, engine)
            return cls(manifest, engine, path)
        check_interface(path, manifest.plain_graph(), engine)
        if open_second is None:
            raise ArtefactError(
                f"{path!r} predicts and does not explain, and no longer says which file beside it "
                "does: another program wrote it anew. Compile it again."
            )
        return cls(manifest, SplitEngine(engine, partial(open_second, manifest)), path)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The model's inputs in order; `target` and `explain` are arguments of `run`."""
        return self.manifest.inputs

    @functools.cached_property
    def texts(self) -> Texts:
        """What turns text into inputs, where the source model takes text."""
        return Texts(self.manifest)

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """Predictions first, then the explanations."""
        return self.manifest.outputs

    def run(
        self,
        x: Inputs,
        target: Target | None = None,
        explain: bool = True,
        check_finite: bool = False,
        groups: npt.ArrayLike | None = None,
        region: npt.ArrayLike | None = None,
        states: States | None = None,
        time: Times | None = None,
    ) -> Result:
        """Runs the artefact on one batch. Safe to call from several threads.

        Args:
            x: an array with the batch axis first where there is one input; else a dict by
                input name or a list in order. Where the source model takes text, a string, or a
                list with a string for each sample; with several texts a dict by their names.
                Float64 becomes float32 and int64 becomes int32 where the values fit; floats are
                never turned into integers.
            target: for an artefact compiled with `target="input"`, what to differentiate: a
                class index or class name for all rows, or a sequence with one for each row.
                -1, "argmax" and None mean each row's own argmax.
            explain: False computes the predictions only; with a gate in the artefact the
                explanations then cost nothing.
            check_finite: refuse NaN and infinity instead of passing them on.
            groups: for an artefact compiled with `groups="input"`, which group each position
                belongs to: whole numbers from 0, `[batch, ...positions]` or for one sample.
            region: for an artefact compiled with `region="input"`, what each position of the
                output that is explained counts, `[batch, ...positions]` or for one sample; ones
                where it is left out.
            states: for an artefact compiled with `states="io"`, what its recurrent layers start
                from, by the names of those inputs: `result.states` of the chunk of the series
                before. Zeros where they are left out.
            time: what stands at each step of a series (dates, numbers or text), for pictures:
                `[time]` for all samples or `[batch, time]`; a dict of these by input name where
                series differ. The model does not see it.

        Returns:
            A `Result`: a mapping from output name to `Record`.

        Raises:
            InputError: the inputs or the target do not fit.
            ArtefactError: the engine failed.
        """
        feeds = self.prepare(x, target, explain, check_finite, groups, region, states)
        run = self._run_of(feeds.inputs, feeds.asked, time)
        return Result(run, self.compute(feeds))

    def prepare(
        self,
        x: Inputs,
        target: Target | None = None,
        explain: bool = True,
        check_finite: bool = False,
        groups: npt.ArrayLike | None = None,
        region: npt.ArrayLike | None = None,
        states: States | None = None,
    ) -> Feeds:
        """Checks what `run` is given, and returns what it feeds.

        Raises:
            InputError: as in `run`.
        """
        inputs = checked_with_states(self.texts.given(x), self.inputs, states, check_finite)
        wanted = checked_explain(explain)
        return Feeds(inputs, self._asked(inputs, wanted, target, groups, region), wanted)

    def compute(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Runs the artefact on what `prepare` returned. Safe to call from several threads.

        Args:
            feeds: one batch.
            outputs: names of those that are wanted; all that there are where it is None.

        Returns:
            Arrays by output name.

        Raises:
            InputError: the engine failed at texts that are all empty, or too short.
            ArtefactError: the engine failed.
        """
        if outputs is None:
            wanted = self.outputs if feeds.explain else self.manifest.predictions
            outputs = [spec.name for spec in wanted]
        fed = {**feeds.inputs, **feeds.asked}
        if self.manifest.has_gate_input:
            fed[GATE_INPUT] = np.array(feeds.explain)
        try:
            return self.engine.run(fed, outputs)
        except ProbegenError:
            raise
        except Exception as error:  # engines raise whatever they like
            product = self.engine.product
            if TOO_FEW_WORDS in str(error):
                raise InputError(self._too_few_words()) from error
            blank = next((name for name, array in fed.items() if _has_no_words(array)), None)
            if blank is not None:
                raise InputError(
                    f"input {blank!r} has no words in it, in any sample, and the model cannot be "
                    f"run on such. Leave empty texts out. {product} says: {cause(error)}"
                ) from error
            raise ArtefactError(
                f"{product} could not run {self.path!r}. {product} says: {cause(error)}"
            ) from error

    def _too_few_words(self) -> str:
        needed = {s.name: s.fewest_words for s in self.inputs if s.fewest_words is not None}
        shown = " or ".join(f"{name!r} has fewer than {n} words" for name, n in needed.items())
        return (
            f"the longest text of input {shown}, and with fewer nothing is left of them behind the "
            "model's convolutions, poolings or cuts. Give a longer text in the same batch, which "
            "the others are filled up to, or leave short ones out."
        )

    def run_batched(
        self,
        x: Inputs,
        batch_size: int,
        target: Target | None = None,
        explain: bool = True,
        check_finite: bool = False,
        groups: npt.ArrayLike | None = None,
        region: npt.ArrayLike | None = None,
        states: States | None = None,
        time: Times | None = None,
    ) -> Result:
        """Runs as `run` does, at most `batch_size` rows at a time, and joins the results.

        Raises:
            InputError: as in `run`, or `batch_size` is not a positive integer.
            ArtefactError: the engine failed.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be 1 or more.")
        specs = [self._of_many(spec, batch_size) for spec in self.inputs]
        feeds = checked_with_states(self.texts.given(x), specs, states, check_finite)
        count = count_rows(feeds, self.inputs)
        if (left := count % batch_size) and specs != list(self.inputs):
            raise InputError(
                f"the artefact takes {batch_size} rows at a time, and {left} of {count} "
                f"are left over; fill them up to {batch_size}."
            )
        wanted = checked_explain(explain)
        asked = self._asked(feeds, wanted, target, groups, region)
        run = self._run_of(feeds, asked, time)
        parts = []
        for start in range(0, count, batch_size):
            rows = slice(start, start + batch_size)
            chunk = {
                spec.name: some_rows(feeds[spec.name], spec.axes, rows) for spec in self.inputs
            }
            asked_of_chunk = {name: array[rows] for name, array in asked.items()}
            parts.append(self.compute(Feeds(chunk, asked_of_chunk, wanted)))
        with stage(f"the parts of {self.path!r} cannot be joined", ArtefactError):
            joined = {
                name: np.concatenate([p[name] for p in parts], axis=self._joined_along(name))
                for name in parts[0]
            }
        return Result(run, joined)

    def _asked(
        self,
        feeds: Mapping[str, Array],
        explain: bool,
        target: Target | None,
        groups: npt.ArrayLike | None,
        region: npt.ArrayLike | None,
    ) -> dict[str, Array]:
        """Returns what is fed beside the model's own inputs, by name, each with rows first.

        Raises:
            InputError: one of them does not fit.
        """
        given = {
            TARGET_INPUT: check_target(target, self.manifest, count_rows(feeds, self.inputs)),
            GROUPS_INPUT: check_groups(groups, self.manifest, feeds, explain),
            REGION_INPUT: check_region(region, self.manifest, feeds),
        }
        return {name: array for name, array in given.items() if array is not None}

    def _run_of(
        self, feeds: Mapping[str, Array], asked: Mapping[str, Array], time: Times | None
    ) -> Run:
        check_times(time, self.inputs, feeds, count_rows(feeds, self.inputs))
        target, region = asked.get(TARGET_INPUT), asked.get(REGION_INPUT)
        return Run(self.manifest, feeds, target, self.path, region, self.texts, time)

    @staticmethod
    def _of_many(spec: InputSpec, batch_size: int) -> InputSpec:
        """Returns an input that takes any number of rows, where a chunk has the rows it takes."""
        sized = zip(spec.axes, spec.shape, strict=True)
        shape = tuple(None if a == BATCH and n == batch_size else n for a, n in sized)
        return dataclasses.replace(spec, shape=shape)

    def _joined_along(self, name: str) -> int:
        """Returns which axis the rows of an output lie along."""
        at = batch_axis(self.manifest.output(name).axes)
        if at is None:
            raise ArtefactError(
                f"the output {name!r} has no batch axis, so that parts of a batch cannot be "
                "joined; use run()."
            )
        return at

    def __repr__(self) -> str:
        manifest = self.manifest
        model = manifest.model.get("name", "a model")
        rows = [(s.name, "input", "", s.dtype, describe(s.axes, s.shape)) for s in self.inputs]
        if manifest.target_input:
            rows.append(("target", "argument", "", "int32", "[batch], -1 is argmax"))
        own = (manifest.region_input, manifest.groups_input)
        for given in (spec for spec in own if spec is not None):
            shown = describe(given.axes, given.shape)
            rows.append((given.name, "argument", "", given.dtype, shown))
        if manifest.gate:
            rows.append(("explain", "argument", "", "bool", "default True"))
        for spec in self.outputs:
            layer = spec.layer_call or spec.input or ""
            rows.append((spec.name, spec.kind, layer, spec.dtype, describe(spec.axes, spec.shape)))
        texts = {spec.name: spec for spec in self.manifest.texts}
        for name, text in texts.items():
            shown = "[" + ", ".join(["batch", *(str(n or "any") for n in text.shape[1:])]) + "]"
            rows.append((name, "text", text.layer, "string", shown))
        title = f"{os.path.basename(self.path.rstrip('/'))}: {model} ({self.engine.name})"
        return title + "\n" + indented_table(("name", "kind", "layer", "dtype", "shape"), rows)


def _has_no_words(array: Array) -> bool:
    """Tells whether an array holds texts, and nothing but empty ones."""
    if array.dtype.kind not in "OSU":
        return False
    return not any(text.strip() for text in array.ravel().tolist())
