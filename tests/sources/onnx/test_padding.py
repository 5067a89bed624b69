"""What says which values of an ONNX graph's inputs are padding, and one number a token of it."""

import numpy as np
import onnx
import onnx.parser
import pytest

import probegen as pg
from probegen import runtime
from probegen.sources import open_source

#: Attention over tokens with a mask that is fed, and a mean that no mask reaches.
_TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
attention ({inputs}) => (float[batch, 3] scores)
<float[11, 4] table = {table}, float[4, 3] weights = {weights}, float one = {{1.0}},
 float penalty = {{{penalty}}}, int64[1] middle = {{1}}, int64 pad = {{2}}, float zero = {{0.0}}>
{{
    vectors = Gather (table, ids)
    turned = Transpose <perm = [0, 2, 1]> (vectors)
    products = MatMul (vectors, turned)
    {mask}
    attended = MatMul (shares, vectors)
    pooled = ReduceMean <keepdims = 0> (attended, middle)
    scores = MatMul (pooled, weights)
}}
"""
_FED = """
    flags = Cast <to = 1> (mask)
    off = Sub (one, flags)
    more = Mul (off, penalty)
    wide = Unsqueeze (more, middle)
    masked = Add (products, wide)
    shares = Softmax (masked)
"""
_EQUAL = """
    gone = Equal (ids, pad)
    wide = Unsqueeze (gone, middle)
    masked = Where (wide, penalty, products)
    shares = Softmax (masked)
"""
_NONE = "shares = Softmax (products)"
_IDS = "int64[batch, time] ids"

RNG = np.random.default_rng(2)
TABLE = RNG.normal(size=(11, 4)).astype(np.float32)
WEIGHTS = RNG.normal(size=(4, 3)).astype(np.float32)


def model(mask, inputs=_IDS, penalty=-1e9):
    def written(array):
        return "{" + ", ".join(f"{v!r}" for v in array.ravel().tolist()) + "}"

    text = _TEXT.format(
        inputs=inputs, mask=mask, penalty=penalty, table=written(TABLE), weights=written(WEIGHTS)
    )
    return onnx.parser.parse_model(text)


def scores(vectors, gone):
    """The model by numpy, in float64; `gone` is true at padding."""
    products = vectors @ vectors.transpose(0, 2, 1)
    products = np.where(gone[:, None, :], -np.inf, products)
    shares = np.exp(products - products.max(2, keepdims=True))
    shares /= shares.sum(2, keepdims=True)
    return (shares @ vectors).mean(1) @ WEIGHTS.astype(np.float64)


def shares_of_tokens(ids, gone):
    """Gradient times embedding of the best class, by central differences; 0 at padding."""
    vectors = TABLE.astype(np.float64)[ids]
    best = scores(vectors, gone).argmax(1)
    found = np.zeros(ids.shape)
    for t in range(ids.shape[1]):
        step = np.zeros_like(vectors)
        step[:, t] = 1e-5 * vectors[:, t]  # along the embedding itself: the product at once
        change = scores(vectors + step, gone) - scores(vectors - step, gone)
        found[:, t] = change[range(len(ids)), best] / 2e-5
    return np.where(gone, 0.0, found)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("fed", model(_FED, f"{_IDS}, int64[batch, time] mask")),
        ("equal", model(_EQUAL, penalty=-3e38)),
    ],
)
def test_one_number_a_token(tmp_path, name, source):
    path = tmp_path / "m.onnx"
    pg.compile(source, pg.InputGradient(per_token="dot"), path)
    artefact = runtime.load(path)
    for rows, length in ((2, 6), (3, 4)):
        ids = np.random.default_rng(rows).integers(3, 11, (rows, length))
        gone = np.zeros(ids.shape, bool)
        gone[0, -2:] = True
        feed = {"ids": np.where(gone, 2, ids) if name == "equal" else ids}
        if name == "fed":
            feed["mask"] = (~gone).astype(np.int64)
        found = artefact.run(feed)["input_gradient/ids"].array
        expected = shares_of_tokens(feed["ids"], gone)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
        assert (found[gone] == 0).all()
    told = artefact.manifest.inputs[0].padding
    expected = ("mask", (0.0,)) if name == "fed" else ("ids", (2.0,))
    assert (told.input, told.values) == expected


def test_where_no_mask_is_known_the_manifest_says_so(tmp_path):
    path = tmp_path / "m.onnx"
    pg.compile(model(_NONE), pg.Saliency(per_token="norm"), path)
    manifest = runtime.load(path).manifest
    assert manifest.inputs[0].padding is None
    assert manifest.output("saliency/ids").detail["padding"] == ""


def test_an_inverted_mask():
    inverted = _FED.replace("more = Mul (off, penalty)", "more = Mul (flags, penalty)")
    source = model(inverted, f"{_IDS}, int64[batch, time] mask")
    found = open_source(source).view.paddings()
    assert (found[0].input, found[0].values) == ("mask", (1.0,))
