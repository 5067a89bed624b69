"""What is written, as other programs read it; and what is left of a run that was stopped."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from probegen import bulk
from probegen.artefact.manifest import Manifest, OutputSpec
from probegen.bulk.stores import layout_of
from tests.runtime.support import images


def test_parquet_is_one_table_of_lists(zoo_art, tmp_path):
    x = images(9)
    np.save(tmp_path / "x.npy", x)
    place = tmp_path / "out.parquet"
    bulk.run(zoo_art, tmp_path / "x.npy", place, batch_size=2, rows_a_part=4)
    table = pd.read_parquet(place)
    assert list(table.columns) == [
        "sample",
        "error",
        "target",
        "animal",
        "input_gradient/image",
        "saliency/image",
    ]
    assert len(table) == 9
    assert table["error"].isna().all()
    whole = zoo_art.run(x)
    found = np.stack(table["saliency/image"]).reshape(9, 5, 7)
    np.testing.assert_allclose(found, whole["saliency/image"].array, 1e-5, 1e-6)
    told = json.loads(pq.read_schema(place / "part-000001.parquet").field(5).metadata[b"probegen"])
    assert (told["shape"], told["axes"]) == ([5, 7], ["height", "width"])
    assert (told["kind"], told["title"]) == ("saliency", whole["saliency/image"].spec.title)


def test_zarr_is_an_array_for_each_output(zoo_art, tmp_path, same):
    zarr = pytest.importorskip("zarr")
    x = images(11)
    x[6] = np.nan
    np.save(tmp_path / "x.npy", x)
    place, asked = tmp_path / "out.zarr", bulk.Asked(check_finite=True)

    def fail(done, total, failed):
        del total, failed
        if done > 5:
            raise KeyboardInterrupt

    options = {"batch_size": 2, "rows_a_part": 4, "asked": asked}
    with pytest.raises(KeyboardInterrupt):
        bulk.run(zoo_art, tmp_path / "x.npy", place, progress=fail, **options)
    (place / "animal" / "c.partial").write_bytes(b"left by a process that was killed")
    done = bulk.run(zoo_art, tmp_path / "x.npy", place, **options)
    assert (done.samples, done.before, done.failed) == (11, 4, 1)
    group = zarr.open_group(place, mode="r")
    assert dict(group["saliency/image"].attrs)["axes"] == ["height", "width"]
    good = [i for i in range(11) if i != 6]
    for name, record in zoo_art.run(x[good]).items():
        found = group[name][:]
        np.testing.assert_allclose(found[good], record.array, 1e-5, 1e-6)
        assert np.isnan(found[6]).all()
    assert [bool(why) for why in group["error"][:]] == [i == 6 for i in range(11)]
    assert not list(place.rglob("*.partial"))
    np.save(tmp_path / "x.npy", x[good])
    bulk.run(zoo_art, tmp_path / "x.npy", place, overwrite=True, **options)
    same(bulk.Results(place), zoo_art, x[good])


def layout(shape, dtype="float32", **options):
    axes = ("batch", "height", "width", "channel")[: len(shape)]
    spec = OutputSpec("scores", "prediction", dtype, shape, axes)
    manifest = Manifest(inputs=(), outputs=(spec,), model={})
    given = {"rows": 10**7, "batch_size": 32, "rows_a_part": None, **options}
    return layout_of(manifest, [spec], **given)


def test_parts_are_whole_batches_of_a_bounded_size():
    found = layout((None, 224, 224, 3))
    size = 224 * 224 * 3 * 4
    assert found.rows_at_once % 32 == found.rows_a_part % found.rows_at_once == 0
    assert found.rows_at_once * size <= 32 * size
    assert 2**26 < found.rows_a_part * size <= 2**27
    assert layout((None, 5)).rows_a_part == layout((None, 5)).rows_at_once == 8192
    assert layout((None, None, None, 3)).rows_a_part == 32
    found = layout((None, 5), rows_a_part=100, rows=130)
    assert (found.rows_at_once, found.rows_a_part, found.parts) == (128, 128, 2)
    assert found.range_of(1) == (128, 130)
