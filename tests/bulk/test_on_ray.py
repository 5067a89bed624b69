"""Bulk runs on Ray: what an actor does, and (`make test-ray`) a cluster that loses a machine.

Only the latter needs Ray; all of it runs without TensorFlow.
"""

import dataclasses
import hashlib
import json
import sys
import threading
import time

import numpy as np
import pytest

from probegen import bulk, runtime
from probegen.bulk import on_ray
from probegen.errors import InputError
from tests.command_line import status_of
from tests.serve.linear import HEIGHT, WIDTH, linear_artefact

ROWS, PART = 96, 8


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    return runtime.load(linear_artefact(tmp_path_factory.mktemp("ray") / "linear.onnx"), threads=1)


@pytest.fixture
def x(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(ROWS, HEIGHT, WIDTH)).astype(np.float32))
    return tmp_path / "x.npy"


@pytest.fixture
def here(monkeypatch):
    """Runs actors in this process, the parts in another order; returns the tasks."""
    tasks = []

    def results(ray, data, task, missing):
        del ray, data
        tasks.append(task)
        actor = on_ray.PartWriter(task)
        for part in missing[::-1]:
            found = actor({"part": np.array([part])})
            yield {name: values[0] for name, values in found.items()}

    monkeypatch.setattr(on_ray, "_results", results)
    monkeypatch.setattr(on_ray.extras, "ray_data", lambda: (FakeRay, None))
    return tasks


class FakeRay:
    @staticmethod
    def is_initialized():
        return True


def contents(folder):
    """Digests of all files but the journal, which knows when the run began, by name."""
    journals = (folder / "_probegen.json", folder / "zarr.json")
    found = (p for p in folder.rglob("*") if p.is_file() and p not in journals)
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def run(art, x, place, **options):
    return bulk.run(art, x, place, batch_size=4, rows_a_part=PART, **options)


@pytest.mark.usefixtures("here")
def test_actors_write_the_bytes_of_a_run_on_one_machine(art, x, tmp_path):
    run(art, x, tmp_path / "alone.parquet")
    told = []
    done = run(art, x, tmp_path / "many.parquet", ray="any", progress=lambda *now: told.append(now))
    assert (done.samples, done.before, done.failed) == (ROWS, 0, 0)
    assert told == [(n, ROWS, 0) for n in range(0, ROWS + 1, PART)]
    alone = contents(tmp_path / "alone.parquet")
    assert len(alone) == ROWS // PART
    assert contents(tmp_path / "many.parquet") == alone
    assert bulk.Results(tmp_path / "many.parquet").finished


@pytest.mark.usefixtures("here")
def test_a_column_of_years_is_no_feature_for_actors_either(tmp_path):
    place = linear_artefact(tmp_path / "series.onnx", inputs={"x": "batch,time,feature"})
    art, tables = runtime.load(place, threads=1), tmp_path / "tables"
    tables.mkdir()
    for year in (1950, 2001):
        lines = [f"{year + i},{i},{i * i},{year % 7}.5" for i in range(HEIGHT)]
        (tables / f"{year}.csv").write_text("\n".join(["year,a,b,c", *lines, ""]))
    run(art, tables, tmp_path / "alone.parquet", time_column="year")
    done = run(art, tables, tmp_path / "many.parquet", time_column="year", ray="any")
    assert (done.samples, done.failed) == (2, 0)
    assert contents(tmp_path / "alone.parquet") == contents(tmp_path / "many.parquet")


def test_a_run_goes_on_with_ray_or_without(art, x, tmp_path, here):
    run(art, x, tmp_path / "alone.parquet")
    place = tmp_path / "some.parquet"
    run(art, x, place)
    for part in (1, 4, 7):
        (place / f"part-{part:06}.parquet").unlink()
    assert run(art, x, place, ray="any").before == ROWS - 3 * PART
    assert contents(place) == contents(tmp_path / "alone.parquet")
    (place / "part-000002.parquet").unlink()
    assert run(art, x, place).before == ROWS - PART
    assert contents(place) == contents(tmp_path / "alone.parquet")
    assert len(here) == 1


@pytest.mark.usefixtures("here")
def test_a_damaged_sample_is_recorded_or_ends_the_run(art, tmp_path):
    rows = np.random.default_rng(1).normal(size=(ROWS, HEIGHT, WIDTH)).astype(np.float32)
    rows[11, 1, 2] = np.nan
    np.save(tmp_path / "x.npy", rows)
    strict = bulk.Asked(check_finite=True)
    done = run(art, tmp_path / "x.npy", tmp_path / "a.parquet", ray="any", asked=strict)
    assert done.failed == 1
    assert done.first_error[0] == "11"
    with pytest.raises(InputError, match=r"sample 11: .*not finite"):
        run(
            art, tmp_path / "x.npy", tmp_path / "b.parquet", ray="any", asked=strict,
            on_error="stop",
        )  # fmt: skip


@pytest.mark.usefixtures("here")
def test_what_no_cluster_can_do_is_refused_first(art, x, tmp_path):
    for options, said in (
        ({"ray": "ray://head:10001"}, "Ray's client"),
        ({"ray": "auto", "ray_threads": 0}, "1 or more"),
    ):
        with pytest.raises(InputError, match=said):
            run(art, x, tmp_path / "out.parquet", **options)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"artefact": "/nowhere/m.onnx"}, "has no '/nowhere/m.onnx', the artefact"),
        ({"digest": "0" * 64}, "another artefact"),
        ({"identity": "0" * 64}, "another input"),
        ({"engine": "onnxruntime, AnotherProvider"}, "AnotherProvider"),
    ],
)
def test_a_machine_that_sees_something_else_is_told(art, x, tmp_path, here, change, said):
    run(art, x, tmp_path / "out.parquet", ray="any")
    actor = on_ray.PartWriter(dataclasses.replace(here[0], **change))
    found = actor({"part": np.array([0])})
    assert found["kind"] == ["InputError"]
    assert said in found["error"][0]


def test_without_ray_nothing_is_written(art, x, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'probegen\[ray\]'"):
        run(art, x, tmp_path / "out.parquet", ray="auto")
    assert not (tmp_path / "out.parquet").exists()


# -- with Ray ----------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """A machine that runs nothing, and two with one worker each; all on this one."""
    pytest.importorskip("ray", reason="make test-ray installs it")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield made, [made.add_node(num_cpus=1) for _ in range(2)]
    finally:
        made.shutdown()


@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
def test_a_cluster_loses_a_machine_midway(art, tmp_path, cluster, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    made, nodes = cluster
    rows = 1200
    x = np.random.default_rng(0).normal(size=(rows, HEIGHT, WIDTH)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    place, alone = tmp_path / f"out{suffix}", tmp_path / f"alone{suffix}"
    seen = []
    killed = threading.Event()

    def kill():
        while sum(n < rows for n, _, _ in seen) < 20:
            time.sleep(0.01)
        made.remove_node(nodes[0], allow_graceful=False)
        killed.set()

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    done = run(
        art, tmp_path / "x.npy", place, ray=made.address, progress=lambda *now: seen.append(now)
    )
    watcher.join(60)
    assert killed.is_set()
    assert done == bulk.Summary(rows, 0, 0, None)
    assert [n for n, _, _ in seen] == sorted(n for n, _, _ in seen)
    run(art, tmp_path / "x.npy", alone)
    assert contents(place) == contents(alone)


def test_no_cluster_answers(art, x, tmp_path):
    pytest.importorskip("ray", reason="make test-ray installs it")
    with pytest.raises(InputError, match="no Ray cluster can be used at 'auto'"):
        run(art, x, tmp_path / "out.parquet", ray="auto")


def test_a_cluster_of_this_machine_in_a_shell(art, x, tmp_path, capfd):
    pytest.importorskip("ray", reason="make test-ray installs it")
    run(art, x, tmp_path / "alone.parquet")
    out = tmp_path / "out.parquet"
    options = ("--ray", "local", "--batch-size", 4, "--part-rows", PART, "--json")
    assert status_of("run", art.path, x, "--out", out, *options) == 0
    assert json.loads(capfd.readouterr().out)["samples"] == ROWS
    assert contents(out) == contents(tmp_path / "alone.parquet")
