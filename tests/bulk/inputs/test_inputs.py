"""Each kind of input, against the same samples as an array; and what is damaged or does not fit."""

import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import probegen as pg
from probegen import bulk, runtime
from probegen.bulk.inputs import Context, open_input
from probegen.errors import ArtefactError, InputError
from tests.runtime.support import CHANNELS, HEIGHT, WIDTH, images


@pytest.fixture
def context(zoo_art):
    return Context(zoo_art.manifest, "float32", None, lambda _: None)


def tensors(x):
    """One column of tensors."""
    kind = pa.fixed_shape_tensor(pa.float32(), x.shape[1:])
    return pa.ExtensionArray.from_storage(
        kind, pa.array(list(x.reshape(len(x), -1)), pa.list_(pa.float32(), x[0].size))
    )


def write(x, kind, path):
    """Writes samples; returns where."""
    place = path / f"x.{kind.partition(' ')[0]}"
    flat = x.reshape(len(x), -1)
    if kind == "npy":
        np.save(place, x)
    elif kind == "npy fortran":
        np.save(place, np.asfortranarray(x))
    elif kind == "npz":
        np.savez(place, image=x)
    elif kind == "npz packed":
        np.savez_compressed(place, x)
    elif kind == "dat":
        x.tofile(place)
    elif kind == "parquet lists":
        column = pa.array(list(flat))
        pq.write_table(pa.table({"id": range(len(x)), "image": column}), place, row_group_size=5)
    elif kind == "parquet nested":
        pq.write_table(pa.table({"image": pa.array(x.tolist())}), place, row_group_size=7)
    elif kind == "parquet tensors":
        pq.write_table(pa.table({"any": tensors(x)}), place, row_group_size=100)
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        zarr.create_array(place, data=x, chunks=(3, 2, 7, 1))
    elif kind == "zarr group":
        zarr = pytest.importorskip("zarr")
        zarr.create_group(place).create_array("image", data=x, chunks=(4, *x.shape[1:]))
    return place


KINDS = (
    "npy",
    "npy fortran",
    "npz",
    "npz packed",
    "dat",
    "parquet lists",
    "parquet nested",
    "parquet tensors",
    "zarr",
    "zarr group",
)


@pytest.mark.parametrize("kind", KINDS)
def test_any_samples_are_read_from_anywhere(context, tmp_path, kind):
    x = images(19)
    source = open_input(write(x, kind, tmp_path), context)
    assert source.rows == 19
    for start, stop in ((0, 4), (4, 9), (9, 19), (2, 3), (18, 19), (0, 19)):
        samples = source.read(start, stop)
        (block,) = samples.blocks
        assert (list(block.rows), samples.errors) == (list(range(stop - start)), {})
        np.testing.assert_array_equal(np.asarray(block.feed["image"], np.float32), x[start:stop])
        assert source.names(start, stop) == [str(i) for i in range(start, stop)]


@pytest.mark.parametrize("kind", ["npy", "npz packed", "parquet lists"])
def test_the_files_of_a_folder_follow_each_other(context, tmp_path, kind):
    parts = [images(5, 1), images(1, 2), images(8, 3)]
    for i, part in enumerate(parts):
        (tmp_path / f"day_{i}").mkdir()
        write(part, kind, tmp_path / f"day_{i}")
    source = open_input(tmp_path, context)
    assert source.rows == 14
    suffix = kind.partition(" ")[0]
    assert source.names(4, 8) == [
        f"day_0/x.{suffix}[4]",
        f"day_1/x.{suffix}[0]",
        f"day_2/x.{suffix}[0]",
        f"day_2/x.{suffix}[1]",
    ]
    for start, stop in ((0, 14), (3, 8), (5, 6), (13, 14), (0, 5)):
        blocks = source.read(start, stop).blocks
        assert [row for block in blocks for row in block.rows] == list(range(stop - start))
        found = np.concatenate([np.asarray(b.feed["image"], np.float32) for b in blocks])
        np.testing.assert_array_equal(found, np.concatenate(parts)[start:stop])


def test_a_folder_of_images(zoo_art, tmp_path):
    """Those below it too, in the order of their paths; a broken one holds the reason."""
    (tmp_path / "in" / "b").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (4, HEIGHT, WIDTH, CHANNELS), np.uint8)
    for i, name in enumerate(("c.png", "b/z.png", "b/a.bmp", "a.png")):
        Image.fromarray(pixels[i]).save(tmp_path / "in" / name)
    broken = os.fsdecode(b"br\xf6ken.jpg")  # in Latin-1, as old archives have names
    (tmp_path / "in" / "b" / broken).write_bytes(b"\xff\xd8\xff no image")
    (tmp_path / "in" / "notes.txt").write_text("not read")
    said = []
    place = tmp_path / "out.parquet"
    done = bulk.run(
        zoo_art,
        tmp_path / "in",
        place,
        asked=bulk.Asked(scale=1 / 255),
        batch_size=2,
        say=said.append,
    )
    named = "b/br\\xf6ken.jpg"
    assert (done.samples, done.failed, done.first_error[0]) == (5, 1, named)
    (records,) = bulk.Results(place).read()
    assert records.samples == ["a.png", "c.png", "b/a.bmp", named, "b/z.png"]
    assert [why is None for why in records.errors] == [True, True, True, False, True]
    assert "no image that can be read" in records.errors[3]
    order = [3, 0, 2, None, 1]
    for at, sample in enumerate(order):
        if sample is None:
            assert {name: v[at] for name, v in records.values.items()} == dict.fromkeys(
                records.values
            )
            continue
        alone = zoo_art.run(pixels[sample : sample + 1].astype(np.float32) / 255)
        for name, record in alone.items():
            np.testing.assert_allclose(records.values[name][at], record.array[0], 1e-5, 1e-6)
    assert any("notes.txt" in line for line in said)


def test_images_of_several_sizes(tmp_path):
    """Those of one size run together; the record of each has its own shape."""
    import keras
    from keras import layers

    x = keras.Input((None, None, 3), name="image")
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="tanh")(x))
    pg.compile(
        keras.Model(x, layers.Dense(2, name="kind")(y)),
        pg.InputGradient(target=1),
        tmp_path / "any.onnx",
        verify=False,
    )
    art = runtime.load(tmp_path / "any.onnx")
    (tmp_path / "in").mkdir()
    sizes = [(9, 7), (5, 6), (9, 7), (8, 4)]
    pixels = [np.random.default_rng(i).integers(0, 255, (*s, 3)) for i, s in enumerate(sizes)]
    for i, image in enumerate(pixels):
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "in" / f"{i}.png")
    bulk.run(art, tmp_path / "in", tmp_path / "out.parquet")
    (records,) = bulk.Results(tmp_path / "out.parquet").read()
    for i, image in enumerate(pixels):
        alone = art.run(image[np.newaxis].astype(np.float32))
        for name, record in alone.items():
            assert records.values[name][i].shape == record.array[0].shape
            np.testing.assert_allclose(records.values[name][i], record.array[0], 1e-4, 1e-5)
    pytest.importorskip("zarr")
    with pytest.raises(InputError, match=r"sizes of the output .* may differ"):
        bulk.run(art, tmp_path / "in", tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_rows_of_features_in_columns(tmp_path):
    import keras

    x = keras.Input((3,), name="row")
    pg.compile(
        keras.Model(x, keras.layers.Dense(2, name="kind")(x)),
        pg.InputGradient(target=0),
        tmp_path / "rows.onnx",
        verify=False,
    )
    art = runtime.load(tmp_path / "rows.onnx")
    rows = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    columns = {"name": list("abcdef"), "p": rows[:, 0], "q": rows[:, 1], "r": rows[:, 2]}
    table = pa.table(columns)
    missing = pa.array([None if i == 2 else v for i, v in enumerate(rows[:, 1].tolist())])
    pq.write_table(table.set_column(2, "q", missing), tmp_path / "x.parquet")
    done = bulk.run(art, tmp_path / "x.parquet", tmp_path / "out.parquet")
    assert (done.failed, done.first_error[0]) == (1, "2")
    assert "no value for 'row'" in done.first_error[1]
    (records,) = bulk.Results(tmp_path / "out.parquet").read()
    kind = art.run(rows)["kind"].array
    for i in (0, 1, 3, 4, 5):
        np.testing.assert_allclose(records.values["kind"][i], kind[i], 1e-5, 1e-6)
    pq.write_table(table.append_column("s", pa.array(rows[:, 0])), tmp_path / "four.parquet")
    with pytest.raises(InputError, match=r"the columns 'name', 'p', 'q', 'r', 's'.*'row'"):
        bulk.run(art, tmp_path / "four.parquet", tmp_path / "o.parquet")


def test_what_is_refused_says_why(context, zoo_art, tmp_path):
    x = images(6)

    def refused(says, path, given=context):
        with pytest.raises(InputError, match=says):
            open_input(path, given)

    refused("there is nothing at", tmp_path / "none.npy")
    np.save(tmp_path / "turned.npy", np.moveaxis(x, 3, 1))
    refused(r"shape \(6, 3, 5, 7\) for the input 'image'", tmp_path / "turned.npy")
    np.savez(tmp_path / "other.npz", picture=x)
    refused(r"holds 'picture'; the artefact takes 'image'", tmp_path / "other.npz")
    np.savez(tmp_path / "fortran.npz", image=np.asfortranarray(x))
    refused("do not lie one after the other", tmp_path / "fortran.npz")
    whole = (tmp_path / "turned.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-5])
    refused("its header tells of", tmp_path / "cut.npy")
    np.save(tmp_path / "complex.npy", x.astype(complex))
    refused("has the element type complex", tmp_path / "complex.npy")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    refused("no Parquet file", tmp_path / "cut.parquet")
    x[:5].tofile(tmp_path / "x.dat")
    untyped = Context(zoo_art.manifest, None, None, lambda _: None)
    refused("--dtype float32", tmp_path / "x.dat", untyped)
    wide = Context(zoo_art.manifest, "float128x", None, lambda _: None)
    refused("no such element type", tmp_path / "x.dat", wide)
    (tmp_path / "x.raw").write_bytes(b"\0" * 421)
    refused("has 421 bytes; a sample of the input 'image' takes 420", tmp_path / "x.raw")
    (tmp_path / "empty").mkdir()
    refused("holds no file that can be read", tmp_path / "empty")
    (tmp_path / "model.bin2").write_bytes(b"0")
    refused("expected a folder", tmp_path / "model.bin2")
    (tmp_path / "both").mkdir()
    np.save(tmp_path / "both" / "x.npy", x)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "both" / "y.png")
    refused("holds images and other files", tmp_path / "both")


def test_what_is_beside_the_inputs_and_what_is_lost_is_told(zoo_art, tmp_path):
    """Labels in an .npz, and chunks of Zarr's that are not there."""
    x, said = images(9), []
    context = Context(zoo_art.manifest, None, None, said.append)
    np.savez(tmp_path / "x.npz", image=x, labels=np.arange(9))
    source = open_input(tmp_path / "x.npz", context)
    np.testing.assert_array_equal(source.read(0, 9).blocks[0].feed["image"], x)
    np.savez(tmp_path / "t.npz", image=x, target=np.arange(9))
    with pytest.raises(InputError, match="holds 'image', 'target'"):
        open_input(tmp_path / "t.npz", context)
    zarr = pytest.importorskip("zarr")
    for name, shards in (("plain", None), ("sharded", (6, *x.shape[1:]))):
        place = tmp_path / f"{name}.zarr"
        zarr.create_array(place, data=x, chunks=(3, *x.shape[1:]), shards=shards)
        open_input(place, context)
        assert len(said) == 1
    next((tmp_path / "plain.zarr" / "c" / "1").rglob("0")).rename(tmp_path / "lost")
    open_input(tmp_path / "plain.zarr", context)
    assert "left out of" in said[0]
    assert "labels" in said[0]
    assert said[1].startswith("1 of 3 chunks of the array 'image' are not there and are read as 0")


def test_a_flipped_bit_in_parquet_is_noticed_where_pages_have_checksums(zoo_art, tmp_path):
    x = images(40)
    column = pa.array(list(x.reshape(40, -1)))
    pq.write_table(
        pa.table({"image": column}), tmp_path / "x.parquet", compression="none",
        use_dictionary=False, write_page_checksum=True,
    )  # fmt: skip
    bulk.run(zoo_art, tmp_path / "x.parquet", tmp_path / "out.parquet")
    part = next((tmp_path / "out.parquet").glob("part-*"))
    for path in (tmp_path / "x.parquet", part):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"x\.parquet is damaged: .*CRC"):
        bulk.run(zoo_art, tmp_path / "x.parquet", tmp_path / "again.parquet")
    with pytest.raises(ArtefactError, match="is damaged"):
        list(bulk.Results(tmp_path / "out.parquet").read())


def test_a_damaged_member_is_noticed_where_it_is_read(context, tmp_path):
    np.savez_compressed(tmp_path / "x.npz", image=images(40))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.infolist()[0].compress_size > 400
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(bytes(data))
    source = open_input(tmp_path / "x.npz", context)
    with pytest.raises(InputError, match=r"no \.npy or \.npz file"):
        source.read(0, 40)
