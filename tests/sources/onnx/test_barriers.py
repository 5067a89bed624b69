"""At which tensors gradients are offered where some operators have none."""

import probegen as pg
from tests.sources.onnx.support import add_weights, hard, parse

TREE = """ai.onnx.ml.TreeEnsembleRegressor<
    nodes_treeids = [0, 0, 0], nodes_nodeids = [0, 1, 2], nodes_featureids = [0, 0, 0],
    nodes_values = [0.5, 0.0, 0.0], nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF"],
    nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0], target_treeids = [0, 0],
    target_nodeids = [1, 2], target_ids = [0, 0], target_weights = [1.0, 3.0], n_targets = 1>"""


def offered(body: str, outputs: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """What each point can be probed for, and why not for more."""
    text = f"""g (float[N,3] x, float[N,3] z) => ({outputs}) {{
        a = Tanh(x)  b = MatMul(z, w)  {body} }}"""
    model = add_weights(parse(text, more=', "ai.onnx.ml" : 1'), w=hard(3, 3))
    return {point.path: (point.probes, point.reason) for point in pg.inspect(model)}


def test_before_a_tree_nothing_is_offered_that_compiling_refuses() -> None:
    found = offered(f"t = {TREE}(a)  y = Add(t, b)", "float[N,3] y")
    for path in ("x", "a"):
        assert "gradient" not in found[path][0]
        assert "TreeEnsembleRegressor" in found[path][1]
    assert "activation" in found["a"][0]
    for path in ("z", "b"):
        assert "gradient" in found[path][0]


def test_one_way_past_a_tree_is_not_enough_and_another_output_is() -> None:
    found = offered(f"t = {TREE}(a)  y = Add(t, a)", "float[N,3] y")
    assert "gradient" not in found["x"][0]
    found = offered(f"t = {TREE}(a)  y = Add(t, b)  c = Exp(a)", "float[N,3] y, float[N,3] c")
    assert "gradient" in found["x"][0]
