"""A network of operators that DeepLIFT and LRP have rules of their own for, side by side."""

import numpy as np
import onnx

#: What a part is called -> its ONNX text from `x` `[n, 7]`, and what of it the head reads.
PARTS = {
    "norms": ("l1 = ReduceL1(x, last) l2 = ReduceL2(x, last) sq = ReduceSumSquare(x, last)",
              "l1 l2 sq"),
    "logarithms": ("le = ReduceLogSumExp(x, last) p = Softplus(x) ls = ReduceLogSum(p, last)",
                   "le ls"),
    "lengths": ("la = LpNormalization<p = 1, axis = 1>(x) lb = LpNormalization<p = 2, axis = 1>(x)",
                "la lb"),
    "extrema": ("o = MatMul(x, w3) t = Tanh(o) ma = Max(x, o) mi = Min(o, t) mm = Max(x, o, t)",
                "ma mi mm"),
    "scatters": (
        "s = Shape(x) at = Expand(places, s) d = MatMul(x, w4) "
        'sa = ScatterElements<axis = 1, reduction = "max">(d, at, x) '
        'si = ScatterElements<axis = 1, reduction = "min">(d, at, x)', "sa si"),
    "quotient": ("e = MatMul(x, w4) f = Softplus(e) di = Div(x, f)", "di"),
    "added": ("h = Tanh(x) ge = Gemm<alpha = 0.7, beta = 1.5>(x, w3, h)", "ge"),
    "product": ("pr = ReduceProd(x, last)", "pr"),
}  # fmt: skip
#: Columns of what the head reads, where it is not 7.
NARROW = {"l1": 1, "l2": 1, "sq": 1, "le": 1, "ls": 1, "pr": 1}
rng = np.random.default_rng(11)
W1 = rng.normal(size=(5, 7))
WEIGHTS = {"w1": W1, "w3": rng.normal(size=(7, 7)), "w4": rng.normal(size=(7, 7))}


def network(*parts, bias=0.0):
    """`[?, 5] -> [?, 3]`: a matrix, the parts, and a matrix of all that they give."""
    lines, read = zip(*(PARTS[p] for p in parts), strict=True)
    names = " ".join(read).split()
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
      net (float[n, 5] row) => (float[n, 3] scores) {{
        m = MatMul(row, w1)  x = Add(m, bias)  {" ".join(lines)}
        y = Concat<axis = 1>({", ".join(names)})  scores = MatMul(y, w2) }}"""
    model = onnx.parser.parse_model(text)
    columns = sum(NARROW.get(name, 7) for name in names)
    known = WEIGHTS | {"bias": np.full(7, bias), "w2": rng.normal(size=(columns, 3))}
    known |= {"last": np.array([1]), "places": np.array([0, 0, 1, 3, 3, 3, 6])}
    used = {n for node in model.graph.node for n in node.input}
    for name, values in known.items():
        if name in used:
            array = values if values.dtype.kind == "i" else values.astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


#: LSTM, GRU in both forms and RNN, each direction, behind each other: `[?, 6, 4]` -> `[?, 3]`.
CELLS = """<ir_version: 9, opset_import: ["" : 17]>
  net (float[n, 6, 4] series, int32[n] lengths) => (float[n, 3] scores) {
    time = Transpose<perm = [1, 0, 2]>(series)
    a = LSTM<hidden_size = 3, direction = "bidirectional">(time, wl, rl, bl, lengths)
    b = Transpose<perm = [0, 2, 1, 3]>(a)
    c = Reshape(b, six)
    d = GRU<hidden_size = 4, linear_before_reset = 1>(c, wg, rg, bg, lengths)
    e = Squeeze(d, one)
    f, g = GRU<hidden_size = 3, direction = "reverse">(e, wh, rh, bh)
    h = Squeeze(f, one)
    i, j = RNN<hidden_size = 2, activations = ["Softsign"]>(h, wr, rr, br)
    k = Concat<axis = 2>(g, j)
    l = Squeeze(k, zero)
    scores = MatMul(l, w) }"""
_SIZES = {"l": (2, 4, 4, 3), "g": (1, 3, 6, 4), "h": (1, 3, 4, 3), "r": (1, 1, 3, 2)}


def cells(*, bias):
    """The network of `CELLS`, with biases or without, and feeds for it."""
    draw = np.random.default_rng(8)
    given = {"w": draw.normal(size=(5, 3)), "six": np.array([0, 0, 6])}
    given |= {"one": np.array([1]), "zero": np.array([0])}
    for name, (count, gates, width, hidden) in _SIZES.items():
        given[f"w{name}"] = draw.normal(size=(count, gates * hidden, width))
        given[f"r{name}"] = draw.normal(size=(count, gates * hidden, hidden)) / 2
        given[f"b{name}"] = bias * draw.normal(size=(count, 2 * gates * hidden))
    model = onnx.parser.parse_model(CELLS)
    for name, values in given.items():
        array = values if values.dtype.kind == "i" else values.astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    series = draw.normal(size=(5, 6, 4)).astype(np.float32)
    return model, {"series": series, "lengths": np.array([6, 4, 6, 1, 5], np.int32)}
