"""Bulk runs: what is written, what is recorded as an error, and going on where one was stopped."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import probegen as pg
from probegen import bulk, runtime
from probegen.bulk.job import Worker
from probegen.errors import InputError, MissingFolderError, OutputExistsError
from probegen.runtime.read import read_input
from tests.runtime.support import images


@pytest.fixture
def x(tmp_path):
    found = images(23, 4)
    found[3] = 0
    found[4] = -found[4] * 1e4
    np.save(tmp_path / "x.npy", found)
    return found


def contents(folder):
    """Digests of all parts by name."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("part-*")}


@pytest.mark.parametrize(("batch_size", "rows_a_part"), [(1, 1), (4, 8), (7, 3), (50, None)])
def test_each_sample_has_a_record(zoo_art, x, tmp_path, same, batch_size, rows_a_part):
    place = tmp_path / "out.parquet"
    told = []
    done = bulk.run(
        zoo_art,
        tmp_path / "x.npy",
        place,
        batch_size=batch_size,
        rows_a_part=rows_a_part,
        progress=lambda *now: told.append(now),
    )
    assert (done.samples, done.before, done.failed, done.first_error) == (23, 0, 0, None)
    same(bulk.Results(place), zoo_art, x)
    assert told[0] == (0, 23, 0)
    assert told[-1] == (23, 23, 0)
    assert pq.read_table(place).column("sample").to_pylist() == [str(i) for i in range(23)]


def test_a_target_is_written_beside_what_was_explained(zoo_art, x, tmp_path, same):
    place = tmp_path / "out.parquet"
    bulk.run(zoo_art, tmp_path / "x.npy", place, asked=bulk.Asked(target="cat"))
    assert set(pq.read_table(place).column("target").to_pylist()) == {2}
    same(bulk.Results(place), zoo_art, x, target="cat")


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_values_far_from_the_verified_ones_are_told_once_and_only_unscaled(tmp_path, suffix):
    import keras

    row = keras.Input((3,), name="row")
    x = np.random.default_rng(0).uniform(size=(5, 3)).astype(np.float32)
    exported = pg.compile(
        keras.Model(row, keras.layers.Dense(2)(row)),
        pg.InputGradient(target=1),
        tmp_path / "m.onnx",
        samples=x,
    )
    art, source = runtime.load(exported.path, threads=1), tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(source, 255 * x)
    else:
        np.savetxt(source, 255 * x, delimiter=",")
    for scale, lines in ((None, 1), (1 / 255, 0)):
        said = []
        bulk.run(
            art,
            source,
            tmp_path / f"{lines}.parquet",
            asked=bulk.Asked(scale=scale),
            say=said.append,
            spell=lambda name, value: f"--{name} {value:.3f}",
        )
        assert len(said) == lines, said
        assert all("--scale 0.004" in line for line in said)


def test_some_outputs(zoo_art, x, tmp_path):
    place = tmp_path / "out.parquet"
    bulk.run(zoo_art, tmp_path / "x.npy", place, asked=bulk.Asked(outputs=("saliency/image",)))
    assert pq.read_table(place).column_names == ["sample", "error", "target", "saliency/image"]
    place = tmp_path / "plain.parquet"
    bulk.run(zoo_art, tmp_path / "x.npy", place, asked=bulk.Asked(explain=False))
    assert pq.read_table(place).column_names == ["sample", "error", "target", "animal"]
    del x


def test_series_of_an_artefact_with_states_start_from_zeros(tmp_path, same):
    import keras

    series = keras.Input((None, 2), name="series")
    model = keras.Model(series, keras.layers.Dense(2, name="last")(keras.layers.GRU(3)(series)))
    path = tmp_path / "m.onnx"
    pg.compile(model, pg.InputGradient(target=1), path, states="io", verify=False)
    art = runtime.load(path, threads=1)
    x = np.random.default_rng(1).normal(size=(5, 4, 2)).astype(np.float32)
    np.save(tmp_path / "series.npy", x)
    bulk.run(art, tmp_path / "series.npy", tmp_path / "out.parquet", batch_size=2)
    same(bulk.Results(tmp_path / "out.parquet"), art, x)
    np.savetxt(tmp_path / "series.csv", x[0], delimiter=",")
    read = read_input(tmp_path / "series.csv", art.manifest).feed
    np.testing.assert_allclose(art.run(read)["last"].array, art.run(x[:1])["last"].array, rtol=1e-5)


def test_a_fixed_number_of_samples_at_a_time(fixed_art, x, tmp_path):
    """The last batch is filled up, and what fills it leaves no record."""
    place = tmp_path / "out.parquet"
    assert bulk.run(fixed_art, tmp_path / "x.npy", place).samples == 23
    whole = fixed_art.run_batched(np.concatenate([x, x[-1:]]), 4)
    at = 0
    for records in bulk.Results(place).read():
        for name, values in records.values.items():
            for row, value in enumerate(values):
                np.testing.assert_array_equal(value, whole[name].array[records.start + row])
        at = records.stop
    assert at == 23
    with pytest.raises(InputError, match="takes 4 samples at a time"):
        bulk.run(fixed_art, tmp_path / "x.npy", tmp_path / "o.parquet", batch_size=8)


def test_samples_that_cannot_be_fed_hold_the_reason(zoo_art, x, tmp_path):
    x[5, 1, 2, 0] = np.nan
    x[22] = np.inf
    np.save(tmp_path / "x.npy", x)
    place, asked = tmp_path / "out.parquet", bulk.Asked(check_finite=True)
    done = bulk.run(zoo_art, tmp_path / "x.npy", place, asked=asked, batch_size=4)
    assert (done.failed, done.first_error[0]) == (2, "5")
    assert "is not finite" in done.first_error[1]
    good = zoo_art.run(np.delete(x, [5, 22], 0))["animal"].array
    found = [v for r in bulk.Results(place).read() for v in r.values["animal"]]
    assert [i for i, v in enumerate(found) if v is None] == [5, 22]
    np.testing.assert_allclose([v for v in found if v is not None], good, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"sample 5: .*is not finite"):
        bulk.run(
            zoo_art,
            tmp_path / "x.npy",
            tmp_path / "stop.parquet",
            asked=asked,
            batch_size=4,
            on_error="stop",
        )


def test_the_run_goes_on_where_an_error_stopped_it(zoo_art, x, tmp_path):
    bulk.run(zoo_art, tmp_path / "x.npy", tmp_path / "whole.parquet", batch_size=2, rows_a_part=4)
    place = tmp_path / "out.parquet"

    def fail(done, total, failed):
        del total, failed
        if done > 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk.run(zoo_art, tmp_path / "x.npy", place, batch_size=2, rows_a_part=4, progress=fail)
    assert sorted(contents(place)) == ["part-000000.parquet", "part-000001.parquet"]
    assert not bulk.Results(place).finished
    assert len(pq.read_table(place)) == 8  # readable meanwhile
    (place / "part-000000.parquet").write_bytes(b"cut short")
    done = bulk.run(zoo_art, tmp_path / "x.npy", place, batch_size=2, rows_a_part=4)
    assert (done.samples, done.before) == (23, 4)
    assert contents(place) == contents(tmp_path / "whole.parquet")
    again = bulk.run(zoo_art, tmp_path / "x.npy", place, batch_size=2, rows_a_part=4)
    assert again.before == 23
    del x


def test_another_artefact_option_or_input_is_refused_by_name(zoo_art, fixed_art, x, tmp_path):
    place, source = tmp_path / "out.parquet", tmp_path / "x.npy"
    bulk.run(zoo_art, source, place, batch_size=4)
    before = contents(place)
    with pytest.raises(OutputExistsError, match="the artefact is another one"):
        bulk.run(fixed_art, source, place, batch_size=4)
    with pytest.raises(OutputExistsError, match="batch size was 4 and is 5"):
        bulk.run(zoo_art, source, place, batch_size=5)
    with pytest.raises(OutputExistsError, match="target was not given and is 'bee'"):
        bulk.run(zoo_art, source, place, batch_size=4, asked=bulk.Asked(target="bee"))
    time.sleep(0.01)
    np.save(source, x + 1)
    with pytest.raises(OutputExistsError, match="files of the input were changed"):
        bulk.run(zoo_art, source, place, batch_size=4)
    np.save(source, x[:20])
    with pytest.raises(OutputExistsError, match="the input had 23 samples and has 20"):
        bulk.run(zoo_art, source, place, batch_size=4)
    assert contents(place) == before
    done = bulk.run(zoo_art, source, place, batch_size=4, overwrite=True)
    assert (done.samples, done.before) == (20, 0)


def test_an_input_that_changes_while_it_is_read_is_noticed(zoo_art, x, tmp_path):
    def change(done, total, failed):
        del total, failed
        if done == 23:
            np.save(tmp_path / "x.npy", x + 1)

    place = tmp_path / "out.parquet"
    with pytest.raises(InputError, match="was changed while it was read"):
        bulk.run(zoo_art, tmp_path / "x.npy", place, progress=change)
    assert not bulk.Results(place).finished


def test_places_that_are_refused(zoo_art, x, tmp_path):
    def refused(error, says, place):
        with pytest.raises(error, match=says):
            bulk.run(zoo_art, tmp_path / "x.npy", place)

    refused(InputError, r"ends in .parquet or .zarr", tmp_path / "out.csv")
    refused(MissingFolderError, "does not exist", tmp_path / "no" / "out.parquet")
    (tmp_path / "file.parquet").write_bytes(b"mine")
    refused(OutputExistsError, "is a file", tmp_path / "file.parquet")
    (tmp_path / "other.parquet").mkdir()
    (tmp_path / "other.parquet" / "mine.txt").write_text("mine")
    refused(OutputExistsError, "holds no records of a bulk run", tmp_path / "other.parquet")
    with pytest.raises(OutputExistsError, match="holds no records of a bulk run"):
        bulk.run(zoo_art, tmp_path / "x.npy", tmp_path / "other.parquet", overwrite=True)
    assert (tmp_path / "other.parquet" / "mine.txt").read_text() == "mine"
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "x.npy", x)
    with pytest.raises(InputError, match="lie within each other"):
        bulk.run(zoo_art, tmp_path / "in", tmp_path / "in" / "out.parquet")
    assert not (tmp_path / "in" / "out.parquet").exists()


def test_wishes_that_are_refused_before_anything_is_written(zoo_art, x, tmp_path):
    place = tmp_path / "out.parquet"
    for asked, says in (
        (bulk.Asked(target=[1, 2]), "one target for all"),
        (bulk.Asked(target="cow"), "cow"),
        (bulk.Asked(outputs=("salience",)), "there is no output 'salience'"),
        (bulk.Asked(groups=np.zeros((5, 7), np.int32)), "takes none"),
    ):
        with pytest.raises(InputError, match=says):
            bulk.run(zoo_art, tmp_path / "x.npy", place, asked=asked)
        assert not place.exists(), says
    for options, says in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rows_a_part": 0}, "rows_a_part is 0"),
        ({"on_error": "skip"}, "on_error is 'skip'"),
    ):
        with pytest.raises(InputError, match=says):
            bulk.run(zoo_art, tmp_path / "x.npy", place, **options)
    assert not place.exists()
    del x


def test_one_process_at_a_time(zoo_art, x, tmp_path, monkeypatch):
    place = tmp_path / "out.parquet"
    original = Worker.write_missing

    def meanwhile(self, progress):
        with pytest.raises(OutputExistsError, match="another process writes"):
            bulk.run(zoo_art, tmp_path / "x.npy", place)
        return original(self, progress)

    monkeypatch.setattr(Worker, "write_missing", meanwhile)
    assert bulk.run(zoo_art, tmp_path / "x.npy", place).samples == len(x)


SAMPLES = 4000


def parts_at(place, kind):
    """How many parts are there."""
    return len(list(place.glob("part-*") if kind == "parquet" else place.glob("@done/c/*")))


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_killed_at_random_moments(zoo_path, tmp_path, kind):
    """SIGKILL ten times, each a random number of parts further on, in the midst of the next."""
    if kind == "zarr":
        pytest.importorskip("zarr")
    np.save(tmp_path / "x.npy", images(SAMPLES, 8))
    command = [sys.executable, "-m", "probegen", "run", zoo_path, tmp_path / "x.npy"]
    command += ["--batch-size", "2", "--part-rows", "32", "--out"]
    subprocess.run([*command, tmp_path / f"whole.{kind}"], check=True, capture_output=True)
    place = tmp_path / f"out.{kind}"
    moments = random.Random(5)
    left = []
    for _ in range(10):
        wanted = parts_at(place, kind) + moments.randint(0, 9)
        process = subprocess.Popen(
            [*command, place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (parts_at(place, kind) < wanted or not place.exists()):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        left.append(parts_at(place, kind))
    print(left)
    assert left == sorted(left)
    assert len(set(left)) > 5
    subprocess.run([*command, place], check=True, capture_output=True)
    assert contents(place) == contents(tmp_path / f"whole.{kind}")
    for one, other in zip(
        bulk.Results(place).read(), bulk.Results(tmp_path / f"whole.{kind}").read(), strict=True
    ):
        assert one.samples == other.samples
        for name, values in one.values.items():
            np.testing.assert_array_equal(values, other.values[name])
    names = [n for r in bulk.Results(place).read(()) for n in r.samples]
    assert names == [str(i) for i in range(SAMPLES)]
    assert not [p for p in place.rglob("*") if p.suffix in (".part", ".partial")]
    assert runtime.load(zoo_path).manifest == bulk.Results(place).manifest


MEASURED = """
import re, sys
import probegen as pg
from probegen import bulk, runtime
bulk.run(runtime.load(sys.argv[1], threads=1), sys.argv[2], sys.argv[3], batch_size=2048)
# Not ru_maxrss, which a new process takes over from the one that started it.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it there")
def test_memory_does_not_grow_with_the_input(zoo_path, tmp_path):
    """The most that a process held (KiB), of inputs of 17 and of 103 MB, in three formats."""
    few, many = 40_000, 245_000
    x = np.tile(images(5_000), (49, 1, 1, 1))
    for kind in ("npy", "npz", "parquet"):
        most = []
        for rows in (few, many):
            source = tmp_path / f"x_{rows}.{kind}"
            if kind == "npy":
                np.save(source, x[:rows])
            elif kind == "npz":
                np.savez_compressed(source, image=x[:rows])
            else:
                column = pa.FixedSizeListArray.from_arrays(
                    pa.array(x[:rows].reshape(-1)), x[0].size
                )
                pq.write_table(pa.table({"image": column}), source, row_group_size=8192)
            command = [sys.executable, "-c", MEASURED, zoo_path, source, f"{source}.out.parquet"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            most.append(int(done.stdout))
            source.unlink()
        print(kind, most)
        assert most[1] - most[0] < x.nbytes / 1024 / 4, (kind, most)
