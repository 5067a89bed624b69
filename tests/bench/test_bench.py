"""The benchmark's arithmetic, its race with workers that only pretend, and one real subject."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench import compare, growth, methods, profile, race, recurrent, worker
from bench.__main__ import main
from bench.race import Timing, ratio
from bench.subjects import settle_batch_normalisation
from bench.tables import exponent, head, row


def test_ratio_is_of_medians_with_the_range_of_the_rounds():
    a, b = Timing((2.0, 9.0, 4.0), 0, 0), Timing((1.0, 3.0, 4.0), 0, 0)
    assert str(ratio(a, b)) == "1.33 (1.00-3.00)"


def test_race_asks_each_in_turn_and_leaves_out_who_cannot_start(monkeypatch, capsys):
    monkeypatch.setattr(race, "WORKER", "tests.bench.fake_worker")
    timings = race.race(
        {
            "slow": {"seconds": 0.5, "peak": 7},
            "quick": {"seconds": 0.25, "peak": 5},
            "absent": {"greeting": "ModuleNotFoundError: no xplique", "seconds": 1, "peak": 1},
        },
        rounds=2,
    )
    assert timings == {"slow": Timing((1.0, 1.5), 7, 1), "quick": Timing((0.5, 0.75), 5, 1)}
    assert "absent left out: ModuleNotFoundError: no xplique" in capsys.readouterr().err


def test_exponent_of_a_power_law():
    assert exponent((1, 2, 5), (3, 12, 75)) == pytest.approx(2)
    with pytest.raises(ValueError, match="two points"):
        exponent((1,), (3,))


def test_growth_fits_every_figure():
    points = [{"plain ms": n, "explain ms": 4 * n**1.5} for n in (1, 4, 16)]
    assert growth.fit((1, 4, 16), points) == pytest.approx({"plain ms": 1, "explain ms": 1.5})


def test_tables_are_markdown():
    assert head(("a", "b")) == "| a | b |\n|---|---:|"
    assert row(("x", 1.5)) == "| x | 1.5 |"


def test_profile_counts_kernels_of_the_timed_runs_and_no_containers():
    def event(ts, op, dur, name="n_kernel_time"):
        return {"cat": "Node", "name": name, "ts": ts, "dur": dur, "args": {"op_name": op}}

    events = [
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 5},
        event(1, "Conv", 9000),
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 5},
        event(11, "Conv", 1000),
        event(12, "If", 4000),
        event(13, "Mul", 500),
        event(14, "Mul", 50, "n_fence_before"),
        {"cat": "Session", "name": "model_run", "ts": 20, "dur": 5},
        event(21, "Conv", 3000),
    ]
    counted = profile.by_op(events, warmup=1, runs=2)
    assert counted == {"Conv": (2.0, 1.0), "Mul": (0.25, 0.5)}
    rows = profile.table({"Conv": (1.0, 1.0)}, counted)
    assert [r["op"] for r in rows] == ["Conv", "Mul", "total"]
    assert rows[-1] == {"op": "total", "plain": (1.0, 1.0), "explain": (2.25, 1.5)}


def test_a_subject_that_cannot_be_made_has_its_row(monkeypatch, capsys):
    def fail(job):
        raise compare.MakeError(f"{job['stage']} of {job['subject']}: killed")

    monkeypatch.setattr(compare, "make", fail)
    assert compare.compare(["VGG16"], [1], 1, False) == [
        {"model": "VGG16", "error": "convert of VGG16: killed"}
    ]
    assert "| VGG16 | - |" in capsys.readouterr().out


def test_methods_are_held_against_the_passes_they_are_made_of(monkeypatch, capsys):
    asked = []

    def write(job):
        if job["file"] == "method" and job["probes"][0][0] == "LRP":
            raise methods.MakeError("no rule")
        size = 4096 if job["file"] == "method" else 1024
        (Path(job["folder"]) / f"{job['file']}.onnx").write_bytes(bytes(size))

    def timed(jobs, rounds):
        asked.append(jobs)
        assert rounds == 2
        seconds = {"plain": 0.5, "explain": 1.0, "method": 24.0, "Xplique": 48.0, "captum": 12.0}
        return {name: Timing((seconds[name],) * 2, 1 + (name == "method"), 0) for name in jobs}

    monkeypatch.setattr(methods, "make", write)
    monkeypatch.setattr(methods, "race", timed)
    names = ["IntegratedGradients(16)", "RISE(64)", "LRP"]
    gradients, scores, refused = methods.compare_methods("ResNet50", names, 2, True, cpu=True)
    assert gradients["one pass of it/one pass"] == "1.50 (1.50-1.50)"  # 24 over 16 of 1
    assert scores["one pass of it/one pass"] == "0.75 (0.75-0.75)"  # 24 over 64 of 0.5
    assert gradients["peak memory/plain"] == "2.00"
    assert gradients["file, KB more"] == "3"
    assert gradients["Xplique/method"] == "2.00 (2.00-2.00)"
    assert gradients["captum/method"] == "0.50 (0.50-0.50)"
    assert scores["captum/method"] == "-"  # captum has no RISE
    assert refused == {"method": "LRP", "error": "no rule"}
    assert all(one["cpu"] and one["threads"] == 1 for jobs in asked for one in jobs.values())
    assert "processor time, one thread" in capsys.readouterr().out


def test_processor_time_leaves_out_what_a_run_waits_for():
    assert worker.timed(lambda: time.sleep(0.05), time.process_time) < 0.02
    assert worker.timed(lambda: time.sleep(0.05), time.perf_counter) >= 0.05


def test_settled_batch_normalisations_keep_the_scale_of_signals():
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = image = keras.Input((6, 5, 3))
    for _ in range(3):
        x = layers.Conv2D(8, 3, padding="same", kernel_initializer="zeros")(x * 0.01)
        x = layers.BatchNormalization(momentum=0.7)(x)
    model = keras.Model(image, x)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    settle_batch_normalisation(model)
    result = model(rng.normal(size=(4, 6, 5, 3)).astype(np.float32), training=False).numpy()
    assert 0.3 < result.std() < 3
    assert model.layers[-1].momentum == 0.7


def test_unknown_subjects_are_refused_before_anything_is_built():
    result = CliRunner().invoke(main, ["digits", "Nemo"])
    assert result.exit_code == 2
    assert "no subject 'Nemo'" in result.output


def test_digits_end_to_end(tmp_path):
    path = tmp_path / "figures.json"
    arguments = ["digits", "--batch", "3", "--rounds", "1", "--json", str(path)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    (figures,) = json.loads(path.read_text())
    assert tuple(figures) == (*compare.COLUMNS, "peers")
    assert figures["batch"] == 3
    assert 1 < float(figures["explain/plain"].split()[0]) < 50
    assert row(figures[c] for c in compare.COLUMNS) in result.output


def test_recurrent_layers_and_growth_over_the_length(monkeypatch, capsys):
    made = []

    def timed(jobs, _):
        (steps,) = {np.load(job["feed"])["x"].shape[1] for job in jobs.values()}
        seconds = {"plain": 1e-5, "explain": 3e-5, "states": 2e-5, "tensorflow": 6e-5}
        return {
            name: Timing((0.0,), 2**20 * (10 + steps), 2**20 * 10, steps * seconds[name])
            for name in jobs
        }

    def make(job):
        made.append(job["subject"])
        for name, size in (("plain", 1024), ("explain", 3 * 1024)):
            (Path(job["folder"]) / f"{name}.onnx").write_bytes(bytes(size))

    monkeypatch.setattr(recurrent, "race", timed)
    monkeypatch.setattr(recurrent, "make", make)
    figures = recurrent.recurrent(1, True, ("LSTM-3",), ("LSTM-3",), (20, 200))
    assert made == ["LSTM-3"]
    (growth_of_it,) = figures["growth"]
    assert growth_of_it["slopes"] == pytest.approx(
        {"plain ms": 1, "explain ms": 1, "ratio": 0, "plain MB": 1, "explain MB": 1}
    )
    shown = capsys.readouterr().out
    assert "| LSTM-3 | 8 | 2.00 | 3.00 | 2.00 | 2.00 |" in shown
    assert "| LSTM-3 | 200 | 2.00 | 6.00 | 3.00 | 200 | 200 | 2 |" in shown
