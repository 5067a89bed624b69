"""Files as inputs: arrays, tables and images are read as they are, or refused; never misread."""

import contextlib
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from probegen import runtime
from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec
from probegen.errors import ArtefactError, InputError, ProbegenError
from probegen.runtime.read import read_input
from probegen.runtime.read.arrays import read_npy, read_npz
from tests.runtime.support import images

IMAGE = ("batch", "height", "width", "channel")


def artefact_of(*inputs, **changes):
    output = OutputSpec("y", "prediction", "float32", (None, 2), ("batch", "class"))
    return Manifest(inputs=inputs, **{"outputs": (output,), **changes})


def rows_of(size, dtype="float32", **more):
    return artefact_of(InputSpec("row", dtype, (None, size), ("batch", "feature"), **more))


def photo_of(*shape, axes=IMAGE, dtype="float32", **changes):
    return artefact_of(InputSpec("photo", dtype, (None, *shape), axes), **changes)


# -- tables --------------------------------------------------------------------------------


def table(tmp_path, text, manifest, header=None, name="x.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    read = read_input(path, manifest, header=header)
    return read.feed, read.feature_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2,3.5\n-1,0,2e0\n", None),
        ("a;b;c\n1;2;3.5\n-1;0;2\n;;\n;;\n", ["a", "b", "c"]),
        ("a,b,c\n1,2,3.5\n-1,0,2\n", ["a", "b", "c"]),
        ("a;b;c\n1;2;3.5\n-1;0;2\n", ["a", "b", "c"]),
        ("1\t2\t3.5\n-1\t0\t2\n", None),
        ("1|2|3.5\r\n-1|0|2\r\n", None),
        ("1 2  3.5\n-1 0 2\n", None),
        ("\ufeffa,b,c\n1,2,3.5\n-1,0,2\n", ["a", "b", "c"]),
        ("\n 1, 2, 3.5\n\n-1 ,0,2\n\n", None),
        ('"width, cm";b;c\n1;2;3.5\n-1;0;2\n', ["width, cm", "b", "c"]),
        ('"a","b","c"\n"1","2","3.5"\n-1,0,2\n', ["a", "b", "c"]),
        ("# a,b,c\n1,2,3.5\n-1,0,2\n", ["a", "b", "c"]),
        (",,c\n1,2,3.5\n-1,0,2\n", ["", "", "c"]),
    ],
)
def test_tables(tmp_path, text, names):
    feed, found = table(tmp_path, text, rows_of(3))
    np.testing.assert_array_equal(feed, [[1, 2, 3.5], [-1, 0, 2]])
    assert found == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,x,3\n4,5,6\n", r"line 1, column 2: 'x' is no number, and '1' beside it is one.*header"),
        ("1,2,\n4,5,6\n", r"line 1, column 3: '' is no number"),
        ("a,b,3\n4,5,6\n", "line 1, column 1: 'a' is no number"),
        ("a,b,c\n4,5,x\n", "line 2, column 3: 'x' is no number"),
        ("a,b,c\n4,,6\n", r"line 2, column 2: the cell is empty \(write nan"),
        ("1,2,3\n4,5\n", "line 2 has 2 cells, and the first line has 3"),
        ("1,5;2,5;3\n4,0;5;6\n", "line 1, column 1.*Decimal commas are not read: write 1.5"),
        ("a;b;c\n1,5;2,5;3\n", "line 2, column 1.*Decimal commas"),
        ("1_0,2,3\n", "'1_0' is no number"),
        ("1,2,3\n,,\n4,5,6\n", "line 2, column 1: the cell is empty"),
        ("0,1,2\n4,5,6\n", "line 1 counts its columns.*Pass header=True .* names, header=False if"),
        ("1,2,3\n1e400,5,6\n", "line 2, column 1: 1e400 is more than a float holds"),
        ("a,b,c\n", "no row of numbers follows"),
        ("", "is an empty table"),
        ("\n \n", "is an empty table"),
        (b"\xff\xfe1\x00,\x002\x00", "is no UTF-8 text"),
        ('1,"2,3\n', "line 1"),
    ],
)
def test_what_is_no_table(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        table(tmp_path, text, rows_of(3))


def test_a_header_can_be_asked_for_and_refused(tmp_path):
    years = "2019,2020,2021\n1,2,3\n"
    feed, names = table(tmp_path, years, rows_of(3), header=True)
    assert (feed.tolist(), names) == ([[1, 2, 3]], ["2019", "2020", "2021"])
    assert len(table(tmp_path, years, rows_of(3))[0]) == 2
    with pytest.raises(InputError, match="line 1, column 1: 'a' is no number"):
        table(tmp_path, "a,b,c\n1,2,3\n", rows_of(3), header=False)
    np.save(tmp_path / "x.npy", np.ones((1, 3)))
    with pytest.raises(InputError, match=r"^header=True is for tables .*x\.npy is none"):
        read_input(tmp_path / "x.npy", rows_of(3), header=True)


def test_a_blank_line_in_one_column_may_be_a_missing_value(tmp_path):
    feed, _ = table(tmp_path, "a b\n1\n2\n\n", rows_of(1))
    assert feed.tolist() == [[1], [2]]
    with pytest.raises(InputError, match=r"line 3 is blank.*write nan"):
        table(tmp_path, "a b\n1\n\n2\n", rows_of(1))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("good film\nbad\n", ["good film", "bad"]),
        ("text\n\n5\n", ["5"]),
        ('text\n"good, no"\n""\n" x "\n', ["good, no", "", " x "]),
        ('"two\nlines"\nsay "hi"\u2028now', ["two\nlines", 'say "hi"\u2028now']),
    ],
)
def test_texts(tmp_path, rank, text, expected):
    shape, axes = (None, 1)[:rank], ("batch", "feature")[:rank]
    manifest = artefact_of(InputSpec("text", "string", shape, axes))
    feed, _ = table(tmp_path, text, manifest)
    assert feed.tolist() == (expected if rank == 1 else [[t] for t in expected])


def test_what_is_no_table_of_texts(tmp_path):
    manifest = artefact_of(InputSpec("text", "string", (None,), ("batch",)))
    for text, says in [
        ("good\nno, bad\n", "line 2 has 2 cells.*double quotes"),
        ("text\n", "no rows of text"),
        ('"good\n', "line 1: unexpected end"),
    ]:
        with pytest.raises(InputError, match=says):
            table(tmp_path, text, manifest)
    assert table(tmp_path, "review\ngood\n", manifest, header=True)[0].tolist() == ["good"]
    assert table(tmp_path, "no, bad\n", manifest, name="x.tsv")[0].tolist() == ["no, bad"]


def test_ids_stay_whole(tmp_path):
    large = 2**53 + 1
    feed, _ = table(tmp_path, f"1,{large}\n", rows_of(2, "int64"))
    assert feed.tolist() == [[1, large]]
    feed, _ = table(tmp_path, "1.0,3\n", rows_of(2, "int32"))
    assert feed.dtype == np.int64
    feed, _ = table(tmp_path, "true,0\n", rows_of(2, "bool"))
    assert feed.tolist() == [[True, False]]
    with pytest.raises(InputError, match="beyond 64 bits"):
        table(tmp_path, "9" * 30 + ",1\n", rows_of(2, "int64"))


def test_a_column_for_each_input(tmp_path):
    one, two = (InputSpec(n, "float32", (None, 1), ("batch", "feature")) for n in ("age", "size"))
    feed, names = table(tmp_path, "size,age\n1,20\n2,30\n", artefact_of(one, two))
    assert names is None
    assert {n: a.tolist() for n, a in feed.items()} == {"age": [[20], [30]], "size": [[1], [2]]}
    with pytest.raises(InputError, match=r"has 2 inputs: 'age', 'size'\. Name its columns so"):
        table(tmp_path, "1,20\n", artefact_of(one, two))


# -- images --------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def picture(tmp_path, image, manifest, name="x.png", **options):
    image.save(tmp_path / name, **options)
    said = []
    feed = read_input(tmp_path / name, manifest, say=said.append).feed
    return feed, " ".join(said)


def test_colours_and_their_order(tmp_path):
    image = Image.fromarray(PIXELS)
    feed, said = picture(tmp_path, image, photo_of(6, 9, 3))
    np.testing.assert_array_equal(feed, PIXELS[None])
    assert (feed.dtype, said) == (np.float32, "")
    first = photo_of(3, 6, 9, axes=("batch", "channel", "height", "width"))
    np.testing.assert_array_equal(
        picture(tmp_path, image, first)[0], PIXELS.transpose(2, 0, 1)[None]
    )
    feed, _ = picture(tmp_path, image, photo_of(6, 9, 3, dtype="uint8"))
    np.testing.assert_array_equal(feed, PIXELS[None])
    assert feed.dtype.kind == "i"
    feed, said = picture(tmp_path, image, photo_of(3, 5, 3))
    assert (feed.shape, said) == ((1, 3, 5, 3), "resized 6x9 to 3x5")
    assert picture(tmp_path, image, photo_of(None, None, 3))[0].shape == (1, 6, 9, 3)


def test_sixteen_bits_are_no_white(tmp_path):
    deep = np.linspace(0, 65535, 54).reshape(6, 9).astype(np.uint16)
    for channels in (1, 3):
        feed, said = picture(tmp_path, Image.fromarray(deep), photo_of(6, 9, channels))
        np.testing.assert_allclose(
            feed, np.repeat(deep[None, ..., None] / 257, channels, -1), atol=1e-3
        )
        assert "16 bits" in said
    feed, _ = picture(tmp_path, Image.fromarray(deep), photo_of(3, 5, 1))
    assert 30 < feed.mean() < 225


@pytest.mark.parametrize("turn", [2, 3, 6, 8])
def test_a_photograph_stands_upright(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    feed, said = picture(tmp_path, Image.fromarray(PIXELS), photo_of(None, None, 3), exif=exif)
    shown = {2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 6: np.rot90(PIXELS, -1),
             8: np.rot90(PIXELS)}[turn]  # fmt: skip
    np.testing.assert_array_equal(feed[0], shown)
    assert "upright" in said


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode(tmp_path, mode, channels):
    flat = np.full((6, 9, 3), (204, 51, 102), np.uint8)
    image = Image.fromarray(flat).convert(mode)
    name = "x.tif" if mode == "CMYK" else "x.png"
    feed, said = picture(tmp_path, image, photo_of(6, 9, channels), name)
    assert feed.shape == (1, 6, 9, channels)
    assert said == ""
    if mode == "1":
        assert set(np.unique(feed)) <= {0, 255}
        return
    grey = np.asarray(Image.fromarray(flat).convert("L"))[0, 0]
    colour = [204, 51, 102] if mode not in ("L", "LA") else [grey] * 3
    expected = {1: [grey], 3: colour, 4: [*colour, 255]}[channels]
    np.testing.assert_allclose(feed[0, 2, 3], expected, atol=2)


def test_transparency_is_told(tmp_path):
    see_through = np.dstack([PIXELS, np.full((6, 9), 128, np.uint8)])
    feed, said = picture(tmp_path, Image.fromarray(see_through), photo_of(6, 9, 3))
    np.testing.assert_array_equal(feed[0], PIXELS)
    assert "transparent" in said


def test_one_value_a_pixel(tmp_path):
    feed, _ = picture(tmp_path, Image.fromarray(PIXELS[..., 0]),
                      photo_of(6, 9, axes=("batch", "time", "feature")))  # fmt: skip
    np.testing.assert_array_equal(feed, PIXELS[None, ..., 0])


def test_the_first_of_several_pictures(tmp_path):
    frames = [Image.fromarray(np.full((6, 9, 3), v, np.uint8)) for v in (10, 200)]
    feed, said = picture(tmp_path, frames[0], photo_of(6, 9, 1), "x.gif", save_all=True,
                         append_images=frames[1:])  # fmt: skip
    np.testing.assert_allclose(feed, 10, atol=2)
    assert "2 pictures" in said


def test_images_that_cannot_be_read(tmp_path, monkeypatch):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)).save(
        whole, "png"
    )
    data = whole.getvalue()
    for name, content in [
        ("empty.png", b""),
        ("text.png", b"nothing"),
        ("half.png", data[: len(data) // 2]),
        ("half.webp", b"RIFF\x10\x00\x00\x00WEBPVP8 "),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is .*no image that can be read"):
            read_input(tmp_path / name, photo_of(6, 9, 3))
    rng = np.random.default_rng(2)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "x.png").write_bytes(damaged)
        with contextlib.suppress(InputError):
            read_input(tmp_path / "x.png", photo_of(6, 9, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "large.png").write_bytes(data)
    with pytest.raises(
        InputError, match=r"more pixels than an image is read with.*Make it smaller"
    ):
        read_input(tmp_path / "large.png", photo_of(6, 9, 3))


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (rows_of(3), "takes .batch, feature=3., not images"),
        (photo_of(6, 9, 2), "has 2 channels, no image has"),
        (photo_of(4, 6, 9, axes=("batch", "time", "height", "width")), "not images"),
        (photo_of(4, 6, 9, 3, axes=("batch", "time", *IMAGE[1:])), "not images"),
        (artefact_of(*(InputSpec(n, "float32", (None, 6, 9, 3), IMAGE) for n in "ab")),
         "has 2 inputs: 'a', 'b'"),
    ],
)  # fmt: skip
def test_inputs_that_take_no_image(tmp_path, manifest, says):
    with pytest.raises(InputError, match=says):
        picture(tmp_path, Image.fromarray(PIXELS), manifest)


# -- ranges --------------------------------------------------------------------------------


def test_values_far_from_those_of_the_verification_are_told(tmp_path):
    known = {"passed": True, "outputs": {}, "range": {"photo": [0.0, 1.0]}}
    verified = photo_of(6, 9, 3, certificate=known)
    image = Image.fromarray(PIXELS)
    _, said = picture(tmp_path, image, verified)
    assert "warning: the input 'photo' is fed values of 0 to 2" in said
    assert "verified on 0 to 1" in said
    said = []
    feed = read_input(tmp_path / "x.png", verified, scale=1 / 255, say=said.append).feed
    np.testing.assert_allclose(feed, PIXELS[None] / 255, rtol=1e-5)
    assert said == []
    np.save(tmp_path / "x.npy", PIXELS[None])
    read_input(tmp_path / "x.npy", verified, say=said.append)
    assert "array of uint8 as they are, 0 to 2" in said[0]
    assert said[1].startswith("warning")
    np.save(tmp_path / "x.npy", PIXELS[None] / 255)
    assert not picture(tmp_path, image, photo_of(6, 9, 3))[1]


def test_pixels_where_only_made_up_values_were_verified(tmp_path):
    made_up = photo_of(6, 9, 3, certificate={"passed": True, "generated": True, "outputs": {}})
    _, said = picture(tmp_path, Image.fromarray(PIXELS), made_up)
    assert "verified on made-up values around 0. If the model expects values of 0 to 1" in said
    said = []
    read_input(tmp_path / "x.png", made_up, scale=1 / 255, say=said.append)
    np.save(tmp_path / "x.npy", 100.5 * np.ones((1, 6, 9, 3)))
    read_input(tmp_path / "x.npy", made_up, say=said.append)
    assert said == []
    for kind in (np.float32, np.int64):  # the bytes of a picture in another type
        np.save(tmp_path / "x.npy", PIXELS[np.newaxis].astype(kind))
        read_input(tmp_path / "x.npy", made_up, say=said.append)
    assert len(said) == 2
    assert "made-up values around 0" in said[1]


# -- arrays --------------------------------------------------------------------------------


def test_arrays_of_every_kind(tmp_path):
    for array in (
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 3)), np.array(["a", "bc"]), np.array(True), np.ones(3, ">f4"),
    ):  # fmt: skip
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), array)
        np.savez_compressed(tmp_path / "x.npz", a=array, b=array)
        np.testing.assert_array_equal(read_npz(tmp_path / "x.npz")["b"], array)


def npy(header, content=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10**15,), }"), ""),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"),
         "tells of 4000000000000000 bytes, and 0 follow"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", b"12345678"),
         "tells of 12 bytes, and 8 follow"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "shape"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n"),
         "Python objects, which are not opened, since they can run code"),
        (npy("((((((" * 15), ""),
        (b"\x93NUMPY\x09\x00", "unknown"),
    ],
)  # fmt: skip
def test_headers_are_not_believed(tmp_path, content, says):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match=f"is no .npy or .npz file of plain numbers.*{says}"):
        read_npy(tmp_path / "x.npy")


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"
        archive.writestr("a.npy", npy(header))
    with pytest.raises(InputError, match="tells of 4000000000000000 bytes"):
        read_npz(tmp_path / "x.npz")
    data = (tmp_path / "x.npz").read_bytes()
    for where in (data.index(b"PK\x01\x02") + 24, data.index(b"PK\x03\x04") + 22):
        data = data[:where] + (2**31).to_bytes(4, "little") + data[where + 4 :]
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(InputError, match="cannot have 2147483648 bytes"):
        read_npz(tmp_path / "x.npz")


def test_damaged_results_are_answered_by_us(artefact, tmp_path):
    """300 damages: bytes changed, cut out, put in; the checksums of zip find most of them."""
    path = artefact.run(images(2), target=[0, 1]).to_npz(tmp_path / "r.npz")
    whole, rng, refused = path.read_bytes(), np.random.default_rng(4), 0
    for number in range(300):
        data = bytearray(whole)
        for _ in range(1 + number % 4):
            place, kind = int(rng.integers(len(data))), rng.integers(4)
            if kind == 0:
                data[place] = int(rng.integers(256))
            elif kind == 1:
                data[place] ^= 1 << int(rng.integers(8))
            elif kind == 2:
                del data[place : place + int(rng.integers(1, 40))]
            else:
                data[place:place] = rng.bytes(int(rng.integers(1, 9)))
        path.write_bytes(data)
        try:
            assert runtime.read_npz(path)["animal"].array.shape == (2, 4)
        except ProbegenError:
            refused += 1
    assert refused > 200


def test_results_with_other_arrays_than_their_manifest_says(artefact, tmp_path):
    path = artefact.run(images(2), target=[0, 1]).to_npz(tmp_path / "r.npz")
    with np.load(path) as archive:
        whole = {name: archive[name] for name in archive.files}
    for name, value, says in [
        ("animal", None, "output 'animal' is missing"),
        ("animal", np.ones(3, np.float32), r"'animal' has the shape \(3,\)"),
        ("animal", np.array([["a"]]), "'animal' is of <U1, not float32"),
        ("@input.image", None, "input 'image' is missing"),
        ("@source", None, "no @source"),
        ("@manifest", np.ones(2), "no @manifest"),
        ("@target", np.ones((2, 2)), "its target has the shape"),
    ]:
        changed = {k: v for k, v in {**whole, name: value}.items() if v is not None}
        with zipfile.ZipFile(path, "w") as archive:
            for member, array in changed.items():
                with archive.open(member + ".npy", "w") as file:
                    np.lib.format.write_array(file, array)
        with pytest.raises(ArtefactError, match=says):
            runtime.read_npz(path)
