"""`probegen run --out`: what it prints and refuses; and `probegen drift` over what it wrote."""

import json

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

import probegen as pg
from probegen import bulk, runtime
from tests import models


def test_records_of_each_sample(probegen_cli, place, tmp_path):
    out = tmp_path / "out.parquet"
    command = ("run", "cnn.onnx", "images.npy", "--out", out, "--batch-size", 2)
    status, said, err = probegen_cli(*command)
    assert (status, said, err) == (0, f"wrote {out}: 3 records\n", "")
    status, said, _ = probegen_cli(*command)
    assert said == f"wrote {out}: 3 records, 3 of them before\n"
    assert pq.read_table(out).num_rows == 3
    status, _, err = probegen_cli(*command, "--target", "bee")
    assert status == 1
    assert "target was not given and is 'bee'" in err
    status, said, _ = probegen_cli(*command, "--target", "bee", "--overwrite", "--json")
    assert json.loads(said) == {"samples": 3, "before": 0, "failed": 0, "written": [str(out)]}
    (records,) = bulk.Results(out).read()
    assert records.targets == [1, 1, 1]
    del place


def test_errors_are_told(probegen_cli, tmp_path):
    x = models.images((11, 8, 2))
    x[1, 0, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    command = ("run", "cnn.onnx", tmp_path / "x.npy", "--check-finite", "-o")
    status, _, err = probegen_cli(*command, tmp_path / "out.parquet")
    assert status == 0
    assert "1 of 3 samples have no outputs" in err
    assert "the first is 1: input 'image'" in err
    status, _, err = probegen_cli(*command, tmp_path / "stop.parquet", "--on-error", "stop")
    assert status == 1
    assert "sample 1: input 'image'" in err
    np.save(tmp_path / "x.npy", x[1:2])
    status, _, _ = probegen_cli(*command, tmp_path / "all.parquet")
    assert status == 1  # none of the samples


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--batch-size", "4"), "--batch-size is for bulk runs: give --out as well"),
        (("--out", "x.parquet", "--plot", "x.png"), "--plot does not go with --out"),
        (("--out", "x.csv"), "ends in .parquet or .zarr"),
        (("--out", "x.parquet", "--output", "none"), "there is no output 'none'"),
    ],
)
def test_options_that_do_not_go_together(probegen_cli, options, says):
    status, out, err = probegen_cli("run", "cnn.onnx", "images.npy", *options)
    assert (status, out) == (1, "")
    assert says in err


def test_a_column_of_years_is_no_feature(probegen_cli, tmp_path):
    """Of series in tables, each a file: `--time-column` says which column is left out."""
    x = keras.Input((None, 2), name="weather")
    model = keras.Model(x, keras.layers.Dense(3, name="ahead")(keras.layers.SimpleRNN(2)(x)))
    path, folder = tmp_path / "m.onnx", tmp_path / "tables"
    pg.compile(model, [pg.InputGradient(target=0)], path, verify=False)
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(7, 2)).round(3).astype(np.float32)
    for name, part, year in (("a", rows[:3], 1950), ("b", rows[3:], 2001)):
        lines = [f"{year + i},{one:g},{two:g}" for i, (one, two) in enumerate(part)]
        (folder / f"{name}.csv").write_text("\n".join(["year,wind,load", *lines, ""]))
    out = tmp_path / "out.parquet"
    command = ("run", path, folder, "--out", out)
    status, _, err = probegen_cli(*command, "--time-column", "year")
    assert status == 0, err
    (records,) = bulk.Results(out).read()
    assert records.samples == ["a.csv[0]", "b.csv[0]"]
    art = runtime.load(path)
    for name in ("ahead", "input_gradient/weather"):
        for found, part in zip(records.values[name], (rows[:3], rows[3:]), strict=True):
            expected = art.run(part[np.newaxis])[name].array[0]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    status, _, err = probegen_cli(*command[:-1], tmp_path / "other.parquet")
    assert (status, "the size 3 on the axis 'feature'" in err) == (1, True), err
    np.save(tmp_path / "x.npy", rows[np.newaxis])
    for option in (("--time-column", "year"), ("--header",)):
        given = ("run", path, tmp_path / "x.npy", "--out", tmp_path / "no.parquet", *option)
        status, _, err = probegen_cli(*given)
        assert status == 1
        assert f"{' '.join(option)} is for tables" in err
    assert not (tmp_path / "no.parquet").exists()
