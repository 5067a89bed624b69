"""The page's script against the runtime: numbers, texts, tables, pictures. Needs node."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image

from probegen.artefact.manifest import InputSpec
from probegen.artefact.preprocessing import Preprocessing
from probegen.artefact.texts import TextSpec, pack
from probegen.errors import InputError
from probegen.runtime import resize
from probegen.runtime.plot import style
from probegen.runtime.read import tables
from probegen.runtime.texts import tokenizer_of
from probegen.runtime.texts.fingerprint import fingerprint
from probegen.web.description import _casefold
from tests.web.support import in_node, needs_node

pytestmark = needs_node

TEXTS = [
    "The cat sat on the mat.",
    "  tabs\tand\nlines\x0band\u00a0hard\u2003spaces ",
    "\u00c9t\u00e9, STRASSE, Stra\u00dfe, \u0130stanbul; \ufb01n",
    "\u4f60\u597d \U0001f600 e\u0301 \u00e9",
    "don't -- stop! [UNK] [PAD] a.b.c",
    "",
    "x" * 150 + " yes",
]
WORDS = ["the", "cat", "\u00e9t\u00e9", "mat", "", "sat", "on", "strasse", "dont", "e", "a"]


def lookup_settings(**changes):
    usual = {
        "vocabulary": pack(WORDS),
        "mask_token": "",
        "oov_token": "[UNK]",
        "oov": 1,
        "mode": "int",
        "dtype": "int64",
    }
    return {**usual, **changes}


def vectorization_settings(**changes):
    usual = {
        "kind": "text_vectorization",
        "standardize": "lower_and_strip_punctuation",
        "split": "whitespace",
        "ngrams": None,
        "length": None,
    }
    return {**lookup_settings(), **usual, **changes}


def word_piece_settings(**changes):
    signs = sorted(set("".join(TEXTS)) | set("".join(TEXTS).casefold()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##t", "stra", *signs]
    vocabulary += [f"##{sign}" for sign in signs]
    usual = {
        "kind": "word_piece",
        "vocabulary": pack(list(dict.fromkeys(vocabulary))),
        "unknown": "[UNK]",
        "suffix": "##",
        "lowercase": True,
        "strip_accents": False,
        "split": True,
        "special": ["[UNK]", "[PAD]"],
        "dividers": pack([[9, 13], [32, 47], [58, 64], [91, 96], [0xA0, 0xA0], [0x4E00, 0x9FFF]]),
        "kept": pack([[33, 47], [58, 64], [91, 96], [0x4E00, 0x9FFF]]),
        "ignorable": pack([[0xAD, 0xAD], [0x200B, 0x200F]]),
        "length": 12,
        "start": [2],
        "end": [3],
        "padding": 0,
        "hidden": [1],
        "dtype": "int32",
    }
    return {**usual, **changes}


def code_point_settings(**changes):
    usual = {
        "kind": "code_points",
        "unit": "byte",
        "lowercase": False,
        "form": None,
        "ignorable": pack([[0xAD, 0xAD]]),
        "most": None,
        "length": 20,
        "start": [],
        "end": [],
        "padding": 0,
        "hidden": [],
        "dtype": "int32",
    }
    return {**usual, **changes}


TOKENIZERS = [
    *(
        vectorization_settings(standardize=standardize, split=split)
        for standardize, split in itertools.product(
            ["lower_and_strip_punctuation", "lower", "strip_punctuation", None],
            ["whitespace", "character"],
        )
    ),
    vectorization_settings(split=None, standardize="lower"),
    vectorization_settings(ngrams=[3, 1], length=9),
    vectorization_settings(oov=7, length=4),
    vectorization_settings(mode="multi_hot", depth=None),
    vectorization_settings(mode="count", depth=20, ngrams=[1, 2]),
    vectorization_settings(
        mode="tf_idf", depth=None, weights=pack([0.1 * i for i in range(12)]), dtype="float32"
    ),
    {"kind": "string_lookup", **lookup_settings()},
    {"kind": "string_lookup", **lookup_settings(mask_token=None, oov=3)},
    {"kind": "string_lookup", **lookup_settings(mode="one_hot", depth=None, dtype="float32")},
    {"kind": "hashing", "bins": 11, "mask": None, "mode": "int", "dtype": "int64"},
    {"kind": "hashing", "bins": 11, "mask": "", "mode": "count", "dtype": "float32"},
    word_piece_settings(),
    word_piece_settings(lowercase=False, strip_accents=True, special=None, length=None),
    word_piece_settings(side="left", split=False),
    code_point_settings(),
    code_point_settings(unit="code point", lowercase=True, form="NFC", most=5000, side="left"),
    code_point_settings(unit="code point", form="NFKD", length=None),
]


def test_texts_are_taken_apart_as_by_the_runtime(tmp_path):
    """Every kind that the page has, on letters of several scripts, blanks and nothing."""
    expected = []
    for settings in TOKENIZERS:
        made = tokenizer_of(TextSpec("words", (None,), {}, settings))
        rows = []
        for text in TEXTS:
            array = np.array([text.encode()], object)
            found = {k: v.tolist() for k, v in made.encode(array).items()}
            ids = np.asarray(found["ids"]).reshape(-1).tolist()
            rows.append({**found, "tokens": made.tokens(ids)})
        expected.append(rows)
    code = """
      page.texts.setCasefold(given.casefold);
      const nested = ({ data, shape }) => shape.length === 1 ? data : [data];
      return Promise.all(given.settings.map(async (tokenizer) => {
        const made = await page.texts.tokenizerOf({ tokenizer });
        return given.texts.map((text) => {
          const found = made.encode([page.texts.toBytes(text)], [1]);
          const tokens = made.words ? made.tokens(found.ids.data) : made.features();
          const plain = Object.entries(found).map(([what, array]) => [what, nested(array)]);
          return { ...Object.fromEntries(plain), tokens };
        });
      }));
    """
    given = {"settings": TOKENIZERS, "texts": TEXTS, "casefold": _casefold()}
    for settings, rows, ours in zip(
        TOKENIZERS, expected, in_node(tmp_path, code, given), strict=True
    ):
        for text, row, own in zip(TEXTS, rows, ours, strict=True):
            row["mask"] = [[int(v) for v in r] for r in row["mask"]] if "mask" in row else None
            own.setdefault("mask", None)
            assert own == row, (settings["kind"], text)


def test_pairs_of_texts(tmp_path):
    settings = [
        word_piece_settings(between=[3], truncate=truncate, length=length)
        for truncate in ("round_robin", "waterfall")
        for length in (9, 40, None)
    ]
    pairs = [("the cat", "cat the cat the cat"), ("the cat cat cat cat the", "a"), ("", "")]
    code = """
      page.texts.setCasefold(given.casefold);
      return Promise.all(given.settings.map(async (tokenizer) => {
        const made = await page.texts.tokenizerOf({ tokenizer });
        return given.pairs.map((pair) => {
          const found = made.encode(pair.map(page.texts.toBytes), [1]);
          return [found.ids.data, found.segments.data];
        });
      }));
    """
    given = {"settings": settings, "pairs": pairs, "casefold": _casefold()}
    for one, ours in zip(settings, in_node(tmp_path, code, given), strict=True):
        made = tokenizer_of(TextSpec("words", (None,), {}, one))
        for pair, own in zip(pairs, ours, strict=True):
            found = made.encode(np.array([[text.encode() for text in pair]], object))
            assert own == [found["ids"][0].tolist(), found["segments"][0].tolist()]


def test_fingerprints(tmp_path):
    texts = ["".join(chr(97 + (7 * i + n) % 26) for i in range(n)) for n in range(200)]
    code = "return given.map((text) => page.fingerprint(text).toString());"
    assert in_node(tmp_path, code, texts) == [str(fingerprint(t.encode())) for t in texts]


def test_scales_and_words(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=40),
        np.abs(rng.normal(size=40)) + 3,
        np.concatenate([np.abs(rng.normal(size=600)), [90.0]]),
        np.concatenate([rng.normal(size=600), [-90.0]]),
        np.zeros(5),
        np.full(4, -2.0),
        np.array([0.9, 1.0, -0.05]),
        np.array([1e-7, 2e-7]),
    ]
    numbers = [0, 1, -1.5, 123.456, 999.6, 12345, 0.00012345, 0.000012345, 1e300, 99.95]
    code = """
      page.scales.setColours(given.colours);
      const kept = ({ colours, low, high, extend }) => [colours, low, high, extend];
      const scales = given.arrays.flatMap((values) => [
        kept(page.scales.scaleOf(values)),
        kept(page.scales.scaleOf(values, { clip: false, signed: true })),
        ...[true, false].flatMap((signed) => [true, false].map((hasZero) =>
          kept(page.scales.attributionScale(values, { signed, hasZero, colours: "inferno" })))),
      ]);
      const scale = page.scales.scaleOf(given.arrays[0]);
      const rgb = [...given.arrays[0], 99, -99].map((one) => page.scales.colour(scale, one));
      return { scales, rgb, words: given.numbers.map(page.scales.number) };
    """
    colours = {
        name: bytes(
            round(float(c) * 255) for row in style.colour_map(name)(range(256))[:, :3] for c in row
        ).hex()
        for name in ("RdBu_r", "viridis", "inferno")
    }
    given = {"arrays": [a.tolist() for a in arrays], "numbers": numbers, "colours": colours}
    made = in_node(tmp_path, code, given)
    expected = []
    for array in arrays:
        expected.append(style.scale_of(array))
        expected.append(style.scale_of(array, clip=False, signed=True))
        expected += [
            style.attribution_scale(array, signed, "inferno", has_zero=has_zero)
            for signed in (True, False)
            for has_zero in (True, False)
        ]
    for ours, scale in zip(made["scales"], expected, strict=True):
        assert (ours[0], ours[3]) == (scale.colours, scale.extend)
        np.testing.assert_allclose(ours[1:3], [scale.low, scale.high], rtol=1e-12)
    rgb = style.scale_of(arrays[0]).rgb(np.array([*arrays[0], 99, -99]))
    np.testing.assert_array_equal(made["rgb"], np.round(rgb * 255))
    assert made["words"] == [style.number(n) for n in numbers]


def test_maps_over_pictures(tmp_path):
    """Brought to a size, behind crops and borders too."""
    heat = np.random.default_rng(1).normal(size=(3, 4))

    def how(fit):
        shape, axes = (None, 6, 9, 3), ("batch", "height", "width", "channel")
        return Preprocessing(
            "float32", shape, axes, "bilinear", False, fit, 0.0, (1.0,), (0.0,), (1.0,), (0, 1, 2)
        )

    cases = [(None, (7, 5)), (None, (3, 4)), (None, (2, 11))]
    cases += [(how(fit), size) for fit in ("stretch", "crop", "pad") for size in ((7, 5), (4, 13))]
    code = """
      const map = { data: Float64Array.from(given.heat.flat()), shape: [3, 4] };
      const over = ([how, size]) => Array.from(page.arrays.overPicture(map, size, how).data);
      return given.cases.map(over);
    """
    plain = [[None if h is None else dataclasses.asdict(h), size] for h, size in cases]
    made = in_node(tmp_path, code, {"heat": heat.tolist(), "cases": plain})
    for ours, (preprocessing, size) in zip(made, cases, strict=True):
        expected = resize.over_picture(heat, size, preprocessing)
        np.testing.assert_allclose(np.reshape(ours, size), expected, atol=1e-12)


def test_pictures_are_resized_as_pillow_does(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (23, 31, 3)).astype(np.uint8)
    pixels[:5] = 0
    pixels[5:9] = 255
    sizes = [(23, 31), (5, 7), (28, 28), (60, 3), (1, 1), (46, 62)]
    code = """
      const data = Uint8ClampedArray.from(given.pixels);
      const picture = { data, width: 31, height: 23 };
      return [1, 3].map((channels) => given.sizes.map((size) =>
        Array.from(page.pictures.resized(page.pictures.inChannels(picture, channels), size).data)));
    """
    rgba = np.dstack([pixels, np.full((23, 31), 255, np.uint8)])
    given = {"pixels": rgba.ravel().tolist(), "sizes": sizes}
    made = in_node(tmp_path, code, given)
    for mode, ours in zip(("L", "RGB"), made, strict=True):
        image = Image.fromarray(pixels).convert(mode)
        for (height, width), own in zip(sizes, ours, strict=True):
            expected = image.resize((width, height), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(own, np.asarray(expected).ravel())


TABLES = [
    "1,2,3\n4,5,6\n",
    "a;b\n1.5;-2e3\n",
    "length width\n1 2\n3 4\n",
    '"a, b",c\n1,nan\n',
    "\ufeff# x\ty\r\n1\ttrue\r\n\r\n",
    "1\n2\n3\n",
    "a,b\n1,2\n,\n",
    "x | y\n1 | 2",
]
WRONG = [
    "",
    "a,b\n",
    "1,x\n2,3\n",
    "1,2\n3\n",
    "a,b\n1,two\n",
    "1,5;2\n3,5;4\n",
    'a,b\n"1,2\n',
    "a,b\n1,\n",
]


def test_tables(tmp_path):
    """Those that the runtime reads give the same numbers; those that it refuses are refused."""
    code = """
      return given.map((text) => {
        try {
          const { rows, names } = page.tables.read(text);
          return [rows, names];
        } catch (error) {
          if (error instanceof page.InputError) return error.message;
          throw error;
        }
      });
    """
    made = in_node(tmp_path, code, [*TABLES, *WRONG])
    path = tmp_path / "t.csv"
    spec = InputSpec("x", "float32", (None, None), ("batch", "feature"))
    for text, ours in zip(TABLES, made[: len(TABLES)], strict=True):
        path.write_bytes(text.encode())
        table = tables.read(path, [spec])
        rows = [[str(v) if not np.isfinite(v) else v for v in row] for row in table.feed.tolist()]
        rows = [[{"nan": "NaN"}.get(v, v) for v in row] for row in rows]
        assert ours == [rows, table.names], text
    for text, ours in zip(WRONG, made[len(TABLES) :], strict=True):
        path.write_bytes(text.encode())
        with pytest.raises(InputError):
            tables.read(path, [spec])
        assert isinstance(ours, str), text


def test_a_series_with_dates(tmp_path):
    text = "day,load,wind\n2024-01-01,1,2\n2024-01-02,3,4\n"
    code = """
      const read = page.tables.read(given.text, { series: true });
      const { table, said } = page.tables.byFeature(read, given.features);
      return [table.rows, table.time, said.length];
    """
    features = [{"name": "wind", "unit": "m/s"}, {"name": "load", "unit": ""}]
    made = in_node(tmp_path, code, {"text": text, "features": features})
    assert made == [[[2, 1], [4, 3]], ["2024-01-01", "2024-01-02"], 1]


def test_halves(tmp_path):
    """Sixteen bits, there and back: rounded to even, subnormal, too large."""
    values = [0, -0.5, 1 / 3, 65504, 65519, 65520, 6e-8, 2.9e-8, 1e-5, 2049, 2051, -1e9]
    code = """
      const { fromHalf, toHalf } = page.inputs;
      return given.map((value) => [toHalf(value), fromHalf(toHalf(value))]);
    """
    made = in_node(tmp_path, code, values)
    with np.errstate(over="ignore"):
        halves = np.array(values, np.float16)
    assert [bits for bits, _ in made] == halves.view(np.uint16).tolist()
    back = [float(v) if isinstance(v, str) else v for _, v in made]
    np.testing.assert_array_equal(np.array(back, np.float64), halves.astype(np.float64))


def test_what_is_fed_is_checked(tmp_path):
    """In the words of the page; what is whole becomes the tensor."""
    code = """
      const manifest = {
        inputs: [given.spec], target_input: true, region_input: null, groups_input: null,
        gate: "required",
      };
      const request = { target: 2, explain: true };
      return given.values.map((value) => {
        try {
          const made = page.inputs.feeds(manifest, new Map([["x", value]]), request);
          const { x, target, explain } = made;
          const beside = [target.data, explain.data].map((data) => Array.from(data));
          return [Array.from(x.data), x.dims, x.dtype, ...beside, explain.dims];
        } catch (error) {
          return error.message;
        }
      });
    """
    spec = InputSpec("x", "float32", (2, None, 3), ("batch", "time", "feature"))
    plain = {**dataclasses.asdict(spec), "longest": 2}
    values = [
        {"data": [1, 2, 3], "shape": [1, 1, 3]},
        {"data": [1, 2], "shape": [1, 1, 2]},
        {"data": [1, 2, 3], "shape": [1, 3]},
        {"data": [0] * 9, "shape": [1, 3, 3]},
        {"data": [1, 2, 1e39], "shape": [1, 1, 3]},
    ]
    made = in_node(tmp_path, code, {"spec": plain, "values": values})
    twice = [[1, 2, 3, 1, 2, 3], [2, 1, 3], "float32", [2, 2], [1], []]
    assert made[0] == twice  # the artefact takes two rows: the sample stands in both
    for said, words in zip(
        made[1:], ("axis feature, expected 3", "2 axes", "at most", "does not fit"), strict=True
    ):
        assert words in said
    ids = {**dataclasses.asdict(spec), "shape": (None, None), "axes": ("batch", "time")}
    ids |= {"dtype": "int64", "vocabulary": 5}
    values = [{"data": [4, 0], "shape": [1, 2]}, {"data": [5], "shape": [1, 1]}]
    values.append({"data": [0.5], "shape": [1, 1]})
    code = code.replace("Array.from(x.data)", "Array.from(x.data, Number)")
    made = in_node(tmp_path, code, {"spec": ids, "values": values})
    assert made[0][:3] == [[4, 0], [1, 2], "int64"]
    assert "ids go from 0 to 4" in made[1]
    assert "whole numbers" in made[2]


#: Elements as far as widgets and charts need some, so that these run without a browser.
DOCUMENT = """
  const element = (tag) => ({
    tag, children: [], style: {}, value: "",
    setAttribute(name, value) { this[name] = value; },
    addEventListener() {},
    append(...more) { this.children.push(...more); },
    replaceChildren(...more) { this.children = more; },
  });
  globalThis.document = { createElement: element, createElementNS: (_, tag) => element(tag) };
  const all = (one) => [one, ...(one.children ?? []).flatMap(all)];
"""


def test_lists_that_differ_in_length_are_no_array(tmp_path):
    """Though they may hold as many numbers as a regular array would."""
    code = """
      return given.texts.map((text) => {
        try {
          return page.widgets.numbers.parsed(text, given.spec);
        } catch (error) {
          return error.message;
        }
      });
    """
    spec = {"name": "x", "axes": ["batch", "time", "feature"], "shape": [None, None, 2]}
    texts = ["[[1, 2], [3, 4], [5, 6]]", "[[1, 2], [3], [4, 5, 6]]", "[[1, 2], 3]", "[1, [2]]"]
    regular, *others = in_node(tmp_path, code, {"texts": texts, "spec": spec})
    assert regular == {"data": [1, 2, 3, 4, 5, 6], "shape": [3, 2]}
    assert all("its lists differ in length" in said for said in others)


def test_long_series_are_drawn(tmp_path):
    """Of more numbers than a function of JavaScript takes arguments."""
    code = (
        DOCUMENT
        + """
      const line = Array.from({ length: given }, (_, i) => i % 7 - 2);
      const chart = page.drawing.chart({ lines: [line, line], label: "sound" });
      const bars = page.drawing.chart({ columns: [NaN, 3, -1], signed: true, label: "bars" });
      const ends = (one) => all(one).filter((part) => typeof part === "string");
      return [ends(chart), ends(bars), page.arrays.reach([NaN, 1, -3, Infinity])];
    """
    )
    assert in_node(tmp_path, code, 300_000) == [["4", "\u22122"], ["3", "\u22121"], 3]


def test_a_table_that_was_not_taken_leaves_nothing_to_run(tmp_path):
    """The row before it would pass for it; of rows with a field a number, and of long ones."""
    code = (
        DOCUMENT
        + """
      const found = [];
      for (const size of [2, 70]) {
        const spec = { ...given, shape: [null, size] };
        const row = page.widgets.row.make(spec, { problem() {} }, () => {});
        const said = () => row.value().then(({ data }) => data.length, (error) => error.message);
        const load = (text) => row.load({ text: async () => text }).catch(() => {});
        const good = Array(size).fill(5).join();
        for (const text of [good, "1,2,x", good, ""]) {
          await load(text);
          found.push(await said());
        }
      }
      return found;
    """
    )
    spec = {"name": "x", "axes": ["batch", "feature"], "features": None}
    spec |= {"vocabulary": None, "integer": False, "dtype": "float32"}
    found = in_node(tmp_path, code, spec)
    assert found[:1] + found[2:5] + found[6:7] == [2, 2, 2, 70, 70]
    assert all('"x" beside' in said or "is no number" in said for said in (found[1], found[5]))
    assert found[7].startswith("Paste a row of 70 numbers")


def test_a_number_of_a_table_that_was_cleared_is_gone(tmp_path):
    code = (
        DOCUMENT
        + """
      const row = page.widgets.row.make(given, { problem() {} }, () => {});
      await row.load({ text: async () => "1,inf,3,nan\\n" });
      const before = await row.value();
      all(row.element).filter((one) => one.type === "number")[0].value = "";
      const after = await row.value();
      return [before, after].map(({ data, notes }) => [data, notes]);
    """
    )
    spec = {"name": "x", "axes": ["batch", "feature"], "shape": [None, 4], "features": None}
    spec |= {"vocabulary": None, "integer": False, "dtype": "float32"}
    before, after = in_node(tmp_path, code, spec)
    assert before == [[1, "Infinity", 3, "NaN"], ["no value is given (NaN) of feature 3"]]
    assert after == [
        ["NaN", "Infinity", 3, "NaN"],
        ["no value is given (NaN) of feature 0, feature 3"],
    ]
