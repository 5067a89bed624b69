"""A bulk run: samples are read, run and written in batches, and no more than some are in memory."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from probegen.artefact.work_folder import sweep
from probegen.bulk import on_ray
from probegen.bulk.inference import Asked, Inference
from probegen.bulk.inputs import Context, Input, open_input
from probegen.bulk.inputs.base import identity
from probegen.bulk.journal import check_same, is_journal, journal_of
from probegen.bulk.locking import held
from probegen.bulk.stores import Layout, Store, format_of, layout_of
from probegen.bulk.worker import Progress, Worker
from probegen.errors import InputError, MissingFolderError, OutputExistsError
from probegen.runtime.loaded import Artefact
from probegen.runtime.read import Say
from probegen.runtime.read.spelling import Spell, keyword
from probegen.stages import check_name, writing

BATCH_SIZE = 32
#: What is done with a sample that cannot be read or fed.
RECORD, STOP = "record", "stop"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a bulk run has done.

    Attributes:
        samples: how many the input has, each of which has a record now.
        before: how many of them had one before.
        failed: how many could not be read or fed, and hold the reason.
        first_error: the name of the first of these and the reason, None where there is none.
    """

    samples: int
    before: int
    failed: int
    first_error: tuple[str, str] | None


def run(
    artefact: Artefact,
    source: str | os.PathLike[str],
    place: str | os.PathLike[str],
    *,
    asked: Asked | None = None,
    batch_size: int | None = None,
    rows_a_part: int | None = None,
    on_error: str = RECORD,
    dtype: str | None = None,
    header: bool | None = None,
    time_column: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say | None = None,
    spell: Spell = keyword,
    ray: str | None = None,
    ray_threads: int = 1,
) -> Summary:
    """Runs an artefact on all samples of an input, and writes a record of each.

    A run that was stopped, however hard, goes on where it was when the same call is made again:
    records are written in parts, which are there whole or not at all.

    Args:
        artefact: a loaded one.
        source: a folder of images (those below it too), or of `.npy`, `.npz` or Parquet files; one
            such file; a folder of Zarr's; a raw memory map; or a table or file of lines, which
            alone is read whole.
        place: a folder whose name ends in `.parquet` or `.zarr`; its own folder exists.
        asked: what is asked of each sample.
        batch_size: samples that run at a time; by default `BATCH_SIZE`, or as many as the artefact
            takes.
        rows_a_part: records that are written whole or not at all; by default so many as have about
            128 MB of outputs.
        on_error: `"record"` writes why a sample could not be read or fed; `"stop"` raises it, and
            the same call goes on from there once the sample is mended or taken away.
        dtype: element type of a raw memory map.
        header: of tables: whether the first row holds names.
        time_column: of series in tables: the name or number (from 1) of the column that says what
            stands at their steps, which is no feature; None takes a column of dates for that.
        overwrite: begin anew where the place holds records of another run.
        progress: called after each batch.
        say: called with what the user should know of how the input is read.
        spell: how messages name options; by default as arguments in Python.
        ray: address of a Ray cluster on which parts are run and written, `"host:6379"`, `"auto"`
            for the one that this machine is in, `"local"` for one on this machine alone. Artefact,
            input and place have to lie on a file system that all its machines have, under the
            same paths, and probegen has to be installed there. See `probegen.bulk.on_ray`.
        ray_threads: threads, and CPUs of Ray, that each worker there takes.

    Raises:
        InputError: the input is damaged or does not fit; an option does not; with
            `on_error="stop"`, a sample is damaged; or the input was changed meanwhile.
        OutputExistsError: the place holds something else, or records of another artefact, input
            or option; or another process writes to it.
        WriteError: the place cannot be written to.
        ArtefactError: the engine failed.
    """
    given, target = Path(source), Path(place)
    asked = asked or Asked()
    say = say or _silent
    if on_error not in (RECORD, STOP):
        raise InputError(f"on_error is {on_error!r}; it is {RECORD!r} or {STOP!r}.")
    if rows_a_part is not None and rows_a_part < 1:
        raise InputError(f"rows_a_part is {rows_a_part}; it must be 1 or more.")
    manifest = artefact.manifest
    inference = Inference(artefact, asked)
    size = _batch_size(batch_size, inference.fixed_batch)
    kind = format_of(target)
    opened = open_input(given, Context(manifest, dtype, header, say, spell, time_column))
    layout = layout_of(manifest, inference.outputs, opened.rows, size, rows_a_part)
    kind.check(layout)
    if ray is not None:
        on_ray.check(ray, ray_threads)
    options = {"batch_size": size, "dtype": dtype, "header": header}
    options |= {} if time_column is None else {"time_column": time_column}
    options |= {"rows_a_part": layout.rows_a_part, "engine": artefact.engine.name}
    journal = journal_of(Path(artefact.path), manifest, opened, asked, layout, options)
    _check_apart(given, target)
    _make(target)
    with writing(target), held(target):
        store = _begun(target, kind, layout, journal, opened, overwrite)
        stops, told = on_error == STOP, progress or _quiet
        if ray is None:
            worker = Worker(inference, opened, store, layout, size, stops, say, spell)
            before = worker.write_missing(told)
        else:
            task = on_ray.Task(
                artefact=os.path.abspath(artefact.path),
                digest=journal["artefact"],
                engine=artefact.engine.name,
                product=artefact.engine.product,
                source=os.path.abspath(given),
                identity=journal["input"]["files"],
                place=os.path.abspath(target),
                asked=asked,
                layout=layout,
                batch_size=size,
                dtype=dtype,
                header=header,
                time_column=time_column,
                stops=stops,
                spell=spell,
                threads=ray_threads,
            )
            before = on_ray.write_missing(task, store, ray, told, say)
            store.resume()  # what a worker that was killed has left half-written
        if identity(opened) != journal["input"]["files"]:
            raise InputError(
                f"{given} was changed while it was read, so that {target} holds records of both: "
                "begin anew with overwrite=True (--overwrite)."
            )
        begun = store.journal(target) or journal
        if not begun.get("finished"):
            store.finish({**begun, "finished": True})
        return _summary(store, layout, before)


def _batch_size(given: int | None, fixed: int | None) -> int:
    if given is not None and given < 1:
        raise InputError(f"batch_size is {given}; it must be 1 or more.")
    if given is not None and fixed is not None and given != fixed:
        raise InputError(
            f"batch_size is {given}, and the artefact takes {fixed} samples at a time."
        )
    return given or fixed or BATCH_SIZE


def _check_apart(given: Path, target: Path) -> None:
    """Refuses to write records among the samples: the next run would take them for some.

    Raises:
        InputError: the place lies within the folder of the input, or the other way round.
    """
    source, place = given.resolve(), target.resolve()
    if source.is_relative_to(place) or (given.is_dir() and place.is_relative_to(source)):
        raise InputError(
            f"the input {given} and the records {target} lie within each other, so that the run "
            "could not go on where it was stopped: write to a folder elsewhere."
        )


def _make(target: Path) -> None:
    """Makes the folder of records, where there is none."""
    check_name(target)
    if not target.parent.is_dir():
        raise MissingFolderError(
            f"cannot write {str(target)!r}: the folder {str(target.parent)!r} does not exist."
        )
    if target.exists() and not target.is_dir():
        raise OutputExistsError(f"{target} is a file; the records go to a folder.")
    with writing(target):
        target.mkdir(exist_ok=True)


def _begun(
    target: Path,
    kind: type[Store],
    layout: Layout,
    journal: dict[str, Any],
    source: Input,
    overwrite: bool,
) -> Store:
    """Returns the store of a run that has begun, now or earlier.

    Raises:
        OutputExistsError: the place holds something else.
    """
    old = kind.journal(target)
    store = kind(target, layout)
    if old is None:
        sweep(target)
        others = [p.name for p in target.iterdir() if p.suffix != ".partial"]
        if others:
            raise OutputExistsError(
                f"{target} exists and holds no records of a bulk run ({others[0]}); choose another "
                "name."
            )
        store.begin(journal)
    elif not is_journal(old) and not overwrite:
        raise OutputExistsError(
            f"{target} holds records that another version of probegen wrote; choose another name, "
            "or begin anew with overwrite=True (--overwrite)."
        )
    elif overwrite:
        store.clear()
        store.begin(journal)
    else:
        check_same(target, old, journal, source)
    store.resume()
    return store


def _summary(store: Store, layout: Layout, before: int) -> Summary:
    failed, first = 0, None
    for records in store.read(()):
        for name, why in zip(records.samples, records.errors, strict=True):
            if why is not None:
                failed += 1
                first = first or (name, why)
    return Summary(layout.rows, before, failed, first)


def _quiet(*_: int) -> None:
    return None


def _silent(_: str) -> None:
    return None
