"""`probegen run --out`: what it prints and refuses; and `probegen drift` over what it wrote."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from probegen import bulk
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
