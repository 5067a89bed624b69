"""What probes cost, told before an export: against sums by hand, and against the export."""

import json
import math

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import shape_inference

import probegen as pg
from probegen.cost.counts import constants, works
from probegen.cost.outline import outline
from probegen.cost.time_model import seconds
from probegen.errors import InstrumentError, SelectionError, SpecError
from probegen.graph import tables
from probegen.graph.core.placeholder_weights import PlaceholderTensor
from probegen.sources import instrumented_program
from tests import models
from tests.command_line import status_of


def vectors():
    """Two dense layers: `[?, 7]` -> 3 scores."""
    x = keras.Input((7,), name="row")
    y = layers.Dense(5, activation="tanh", name="hidden")(x)
    return keras.Model(x, layers.Dense(3, name="scores")(y), name="vectors")


# -- multiply-adds ---------------------------------------------------------------------------


def test_multiply_adds_of_a_prediction():
    x = keras.Input((9, 7, 3))
    y = layers.Conv2D(5, 3, strides=2, padding="same", name="strided")(x)  # [5, 4, 5]
    y = layers.DepthwiseConv2D((3, 2), name="depthwise")(y)  # [3, 3, 5]
    y = layers.Conv2D(6, 2, groups=1, dilation_rate=2, name="dilated")(y)  # [1, 1, 6]
    y = layers.Dense(4, name="scores")(layers.Flatten()(y))
    cost = pg.inspect(keras.Model(x, y), probes=pg.Activations("depthwise")).cost
    strided = 5 * 4 * 5 * (3 * 3 * 3)
    depthwise = 3 * 3 * 5 * (3 * 2)
    dilated = 6 * (2 * 2 * 5)
    assert cost.plain == strided + depthwise + dilated + 6 * 4
    assert [c.multiply_adds for c in cost] == [0]
    assert cost[0].time == pytest.approx(1, abs=0.3)
    assert cost.uncounted == {}


def test_multiply_adds_of_gradients():
    x = keras.Input((6, 5, 2))
    y = layers.Conv2D(3, 3, activation="relu", name="conv")(x)  # [4, 3, 3]
    y = layers.Dense(4, name="scores")(layers.Flatten()(y))
    cost = pg.inspect(keras.Model(x, y), probes=[pg.Saliency(), pg.GradCAM()]).cost
    dense = 4 * 3 * 3 * 4
    assert cost.plain == 4 * 3 * 3 * (3 * 3 * 2) + dense
    # Back through a convolution of stride 1: each pixel sums over the kernel and the filters.
    assert cost[0].multiply_adds == dense + 6 * 5 * 2 * (3 * 3 * 3)
    assert cost[1].multiply_adds == dense


def test_probes_of_one_target_share_the_backward_pass():
    probes = [pg.Saliency(), pg.InputGradient(), pg.Saliency(target=1, name="of_1")]
    cost = pg.inspect(vectors(), probes=probes).cost
    both = 7 * 5 + 5 * 3
    assert cost.plain == both
    assert [c.multiply_adds for c in cost] == [both, both, both]
    assert cost.together.multiply_adds == 2 * both
    assert cost.together.time < sum(c.time for c in cost)


def test_integrated_gradients_run_the_model_at_every_step():
    cost = pg.inspect(vectors(), probes=pg.IntegratedGradients(steps=6)).cost
    # The scores of a step are not looked at, so that the last product runs backwards only. The
    # first one is the same at all points: it runs at the baseline, and backwards once.
    assert cost[0].multiply_adds == 7 * 5 + 6 * (3 * 5) + 5 * 7
    longer = pg.inspect(vectors(), probes=pg.IntegratedGradients(steps=12)).cost
    assert longer[0].multiply_adds - cost[0].multiply_adds == 6 * (3 * 5)
    alone = [
        pg.inspect(vectors(), probes=pg.IntegratedGradients(steps, chunk=1)).cost[0].time
        for steps in (6, 12)
    ]
    assert 1.5 * alone[0] < alone[1] < 2 * alone[0]
    assert cost[0].time < alone[0]  # points in one batch cost fewer operators


@pytest.mark.parametrize(
    ("layer", "gates", "masked"),
    [("LSTM", 4, False), ("GRU", 3, False), ("GRU", 3, True), ("SimpleRNN", 1, False)],
)
def test_multiply_adds_of_recurrent_layers(layer, gates, masked):
    x = keras.Input((11, 3))
    y = layers.Masking()(x) if masked else x
    y = getattr(layers, layer)(5, name="recurrent")(y)
    cost = pg.inspect(keras.Model(x, y), probes=pg.Activations("recurrent")).cost
    assert cost.plain == 11 * gates * 5 * (3 + 5)
    assert cost.uncounted == {}


@pytest.mark.parametrize("build", [models.cnn, models.transformer, models.forecaster])
def test_the_export_does_what_was_told(build, tmp_path):
    model, probes = build(), [pg.Saliency()]
    cost = pg.inspect(model, probes=probes).cost
    options = {"gate": False, "verify": False, "dynamic_batch": False}
    pg.compile(model, pg.Activations(-2), tmp_path / "plain.onnx", **options)
    pg.compile(model, probes, tmp_path / "explain.onnx", **options)
    plain, explain = (counted(tmp_path / f"{name}.onnx") for name in ("plain", "explain"))
    assert cost.plain == plain
    assert cost.plain + cost[0].multiply_adds == explain


def counted(path):
    """Counts multiply-adds of a written file by onnx's own inference, a batch of 1."""
    model = shape_inference.infer_shapes(onnx.load(path), data_prop=True, strict_mode=True)

    def count(graph, sizes):
        described = [*graph.input, *graph.value_info, *graph.output]
        sizes = sizes | {
            v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in described
        }
        sizes |= {i.name: list(i.dims) for i in graph.initializer}
        total = 0
        for node in graph.node:
            of = [sizes.get(name, []) for name in (*node.input, *node.output)]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            first, last = of[0] if of else [], of[len(node.input) :]
            if node.op_type == "Conv":
                total += math.prod(last[0]) * math.prod(of[1][1:])
            elif node.op_type == "MatMul":
                total += math.prod(last[0]) * first[-1]
            elif node.op_type == "Gemm":
                total += math.prod(last[0]) * first[0 if attributes.get("transA") else 1]
            elif node.op_type == "LSTM":
                total += math.prod(first[:2]) * (math.prod(of[1]) + math.prod(of[2]))
            elif node.op_type == "Scan":
                steps = of[len(node.input) - 1][0]
                assert steps > 0
                total += steps * count(attributes["body"], sizes)
            else:
                assert node.op_type not in ("Loop", "Einsum", "GRU", "RNN", "ConvTranspose", "If")
        return total

    return count(model.graph, {})


# -- time --------------------------------------------------------------------------------------


def test_a_heavier_backward_pass_takes_longer():
    """Wide convolutions: the work decides, and a backward pass has as much as a forward one."""
    x = keras.Input((30, 26, 64))
    y = layers.Conv2D(96, 3, padding="same", activation="relu", name="a")(x)
    y = layers.Conv2D(96, 3, padding="same", activation="relu", name="b")(y)
    y = layers.Dense(4)(layers.GlobalAveragePooling2D()(y))
    probes = [pg.Saliency(), pg.InputGradient(wrt="a"), pg.GradCAM("b"), pg.Activations("a")]
    whole, half, head, nothing = (c.time for c in pg.inspect(keras.Model(x, y), probes=probes).cost)
    assert 1.8 < whole < 2.6
    assert 1.4 < half < whole
    assert 1 < head < 1.2
    assert 1 <= nothing < 1.1  # it leaves in Keras' layout


def test_what_convolutions_do_in_passing_takes_no_time():
    def estimate(activation):
        x = keras.Input((30, 26, 8))
        y = layers.Conv2D(8, 3, activation=activation, name="conv")(x)
        model = keras.Model(x, layers.Conv2D(3, 2, name="last")(y))
        program = instrumented_program(pg.instrument(model, pg.Activations("last")))
        graph = outline(program.source, program.plan, 18, {"batch": 1}).graph
        return seconds(list(works(list(graph), constants(graph))))

    assert estimate("relu") == pytest.approx(estimate(None), rel=1e-9)
    assert estimate("softplus") > estimate(None)


# -- outputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "probes", "batch"),
    [
        (models.cnn, [pg.Saliency(), pg.GradCAM(), pg.InputGradient()], models.images((11, 8, 2))),
        (
            models.cnn,
            [pg.Activations("conv*", dtype="float16"), pg.Activations("gap", reduce="mean")],
            models.images((11, 8, 2)),
        ),
        (models.transformer, [pg.Attention(), pg.IntegratedGradients(steps=2)], models.tokens()),
    ],
)
def test_bytes_are_those_of_real_outputs(build, probes, batch):
    model = build()
    outputs = pg.instrument(model, probes)(batch)
    told = {o.name: o for c in pg.inspect(model, probes=probes).cost for o in c.outputs}
    assert list(told) == list(outputs)[1:]
    for name, output in told.items():
        real = np.asarray(outputs[name])
        assert output.bytes * len(batch) == real.nbytes
        assert output.shape == (None, *real.shape[1:])
        assert output.dtype == real.dtype.name


def test_a_row_sums_up_its_outputs():
    cost = pg.inspect(models.cnn(), probes=pg.Activations(["conv1", "conv2"])).cost
    assert cost[0].bytes == 4 * (11 * 8 * 5 + 3 * 3 * 7)
    assert cost[0].row()[:3] == ("activation", "2 outputs", "2.01 kB")


# -- open and fixed sizes ----------------------------------------------------------------------


def open_image():
    x = keras.Input((None, None, 2), name="photo")
    y = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")(x)
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(y)), name="open")


def test_open_sizes_are_given():
    cost = pg.inspect(open_image(), probes=pg.Saliency(), sizes={"photo": (13, 10, 2)}).cost
    assert cost.plain == 13 * 10 * 3 * (3 * 3 * 2) + 3 * 4
    assert cost[0].outputs[0].shape == (None, 13, 10)
    assert cost.uncounted == {}


def test_open_sizes_are_assumed_and_said():
    cost = pg.inspect(open_image(), probes=pg.Saliency()).cost
    assert cost.sizes == {"photo": (224, 224, 2)}
    assert cost.plain == 224 * 224 * 3 * (3 * 3 * 2) + 3 * 4
    assert "assumed: input 'photo' of shape [?, 224, 224, 2]" in str(cost)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"foto": (9, 9, 2)}, "Did you mean 'photo'"),
        ({"photo": (9, 9, 3)}, r"whose shape behind the batch is \(None, None, 2\)"),
        ({"photo": (9, 9)}, "a positive number for each axis"),
        ({"photo": (9, 0, 2)}, "a positive number for each axis"),
    ],
)
def test_sizes_that_do_not_fit(sizes, says):
    with pytest.raises(SpecError, match=says):
        pg.inspect(open_image(), probes=pg.Saliency(), sizes=sizes)


def test_a_fixed_batch_counts_a_sample():
    x = keras.Input(batch_shape=(3, 4, 2))
    y = layers.LSTM(5, stateful=True, name="lstm")(x)
    cost = pg.inspect(keras.Model(x, y), probes=pg.Activations("lstm")).cost
    assert cost.plain == 4 * 4 * 5 * (2 + 5)
    assert cost[0].bytes == 4 * 5


# -- refusals ----------------------------------------------------------------------------------


def test_an_operator_without_a_gradient_is_told_with_its_layer(monkeypatch):
    rules = {op: rule for op, rule in tables.RULES.items() if op != "Tanh"}
    monkeypatch.setattr(tables, "RULES", rules)
    probes = [pg.Saliency(), pg.Activations("hidden"), pg.InputGradient(wrt="hidden")]
    cost = pg.inspect(vectors(), probes=probes).cost
    refused, activation, behind = cost
    assert [(o.op, o.layers, o.reason) for o in refused.refused] == [
        ("Tanh", ("hidden",), "no gradient rule")
    ]
    assert (refused.multiply_adds, refused.time, refused.bytes) == (None, None, 4 * 7)
    assert (activation.refused, activation.multiply_adds) == ((), 0)
    assert (behind.refused, behind.multiply_adds) == ((), 5 * 3)
    assert cost.together.multiply_adds == 5 * 3
    assert [o.name for o in cost.together.outputs] == [o.name for c in cost[1:] for o in c.outputs]
    assert "refused: saliency/row: Tanh: no gradient rule in layer 'hidden'. Give wrt=" in str(cost)


def test_an_operation_without_onnx_form_refuses_all():
    x = keras.Input((4, 4), name="x")
    y = layers.Lambda(lambda v: keras.ops.real(keras.ops.linalg.eigh(v)[0]), name="eigen")(x)
    model = keras.Model(x, layers.Dense(2, name="scores")(y))
    cost = pg.inspect(model, probes=[pg.Saliency(), pg.Activations("scores")]).cost
    assert cost.plain is None
    for one in cost:
        assert ("eigen",) in [o.layers for o in one.refused]
        assert all(o.reason and "savedmodel" in o.advice for o in one.refused)
        assert one.row()[-1] == "refused"
    assert cost.together.multiply_adds is None
    assert "?" in cost.rows()[-1]


def test_a_gradient_that_cannot_flow_is_told_beside_what_can():
    x = keras.Input((5,), name="x")
    y = layers.Lambda(keras.ops.round, name="steps")(layers.Dense(4, name="before")(x))
    model = keras.Model(x, layers.Dense(3, name="scores")(y))
    cost = pg.inspect(model, probes=[pg.Saliency(), pg.InputGradient(wrt="steps")]).cost
    (obstacle,) = cost[0].refused
    assert (obstacle.op, obstacle.layers) == ("Round", ("steps",))
    assert "slope" in obstacle.reason
    assert cost[1].refused == ()
    assert cost[1].multiply_adds == 4 * 3


def test_a_probe_that_finds_no_layer_is_told_beside_those_that_do():
    """The whole table ended there."""
    lost = pg.GradCAM("nowhere")
    cost = pg.inspect(vectors(), probes=[lost, pg.Saliency(target=9), pg.Saliency()]).cost
    assert cost[0].row() == ("grad_cam", "", "", "", "refused")
    assert "refused: grad_cam: no layer matches 'nowhere'" in str(cost)
    assert "refused: saliency: " in str(cost)
    assert (cost[2].refused, cost[2].multiply_adds) == ((), 5 * 3 + 5 * 7)
    with pytest.raises(SelectionError, match="no layer matches 'nowhere'"):
        pg.inspect(vectors(), probes=[lost])


def test_what_no_artefact_could_hold_is_an_error():
    with pytest.raises(InstrumentError, match="several outputs are called"):
        pg.inspect(vectors(), probes=[pg.Saliency(), pg.Saliency()])


# -- nothing is computed -----------------------------------------------------------------------


def test_no_weight_is_read():
    model = models.cnn()
    program = instrumented_program(pg.instrument(model, [pg.Saliency(), pg.GradCAM()]))
    graph = outline(program.source, program.plan, 18, {"batch": 1}).graph
    held = [v.const_value for v in graph.initializers.values()]
    kernels = [t for t in held if len(t.shape) >= 2 and t.size > 8]
    assert [t for t in kernels if isinstance(t, PlaceholderTensor)]
    assert all(not any(t.numpy().strides) for t in kernels if isinstance(t, PlaceholderTensor))
    real = [w for w in model.get_weights() if w.ndim >= 2]
    others = [t.numpy() for t in held if not isinstance(t, PlaceholderTensor)]
    assert not any(o.size == w.size and np.isin(o, w).all() for o in others for w in real)


def test_the_model_is_neither_called_nor_changed(monkeypatch):
    model = models.transformer()
    before, config = model.get_weights(), model.get_config()
    called = []
    monkeypatch.setattr(type(model), "predict", lambda *_: called.append(1))
    pg.inspect(model, probes=[pg.Saliency(), pg.Attention()])
    assert not called
    assert model.get_config() == config
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert all(len(layer._inbound_nodes) == 1 for layer in model.layers)


def test_points_stay_points():
    model = models.cnn()
    points = pg.inspect(model, probes=pg.Saliency())
    assert list(points) == list(pg.inspect(model))
    assert pg.inspect(model).cost is None
    assert str(points).startswith(str(pg.inspect(model)))
    assert str(points).endswith(str(points.cost))


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def inspect_cli(capsys, monkeypatch, tmp_path):
    """Runs `probegen inspect` beside a model file; returns status, standard output and error."""
    monkeypatch.chdir(tmp_path)
    models.cnn().save("cnn.keras")
    open_image().save("open.keras")

    def run(*arguments):
        status = status_of("inspect", *arguments)
        done = capsys.readouterr()
        return status, done.out, done.err

    return run


def test_the_command_prints_a_table(inspect_cli):
    status, out, _ = inspect_cli("cnn.keras", "--cost", "--saliency", "--activations", "conv*")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert "cost of 2 probes over the prediction, 9.84 K multiply-adds a sample" in out
    assert lines[1][:4] == ["probe", "output", "bytes", "a"]
    assert lines[3][:5] == ["activation", "2", "outputs", "2.01", "kB"]
    assert lines[4][:6] == ["saliency/image", "[?,", "11,", "8]", "352", "B"]
    assert lines[5][0] == "together"
    assert all(line[-1].endswith("x") for line in lines[3:6])
    assert "Times are estimates" in out
    assert "probe points" not in out


def test_the_command_prints_json(inspect_cli):
    status, out, _ = inspect_cli(
        "open.keras", "--cost", "--saliency", "--size", "photo=13,10,2", "--json"
    )
    assert status == 0
    told = json.loads(out)
    assert told["model"] == "open"
    assert told["cost"]["plain_multiply_adds"] == 13 * 10 * 3 * 18 + 12
    (probe,) = told["cost"]["probes"]
    assert (probe["bytes"], probe["refused"]) == (4 * 13 * 10, [])
    assert probe["time"] > 1
    assert told["cost"]["sizes"] == {"photo": [13, 10, 2]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cost",), "--cost needs probes whose cost is asked for; add for instance --saliency"),
        (("--saliency",), "--saliency goes with --cost"),
        (("--size", "image=11,8,2"), "--size goes with --cost"),
        (("--cost", "--saliency", "--select", "conv1"), "--select says which points are listed"),
        (("--cost", "--saliency", "--size", "11,8"), "--size takes for instance image=320,240,3"),
    ],
)
def test_options_that_do_not_go_together(inspect_cli, arguments, says):
    status, out, err = inspect_cli("cnn.keras", *arguments)
    assert (status, out) == (1, "")
    assert says in err


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "SimpleRNN"])
def test_gradients_of_recurrent_layers_of_any_length(layer):
    """As of a model of that length; longer series cost as much more."""

    def told(length, sizes=None):
        x = keras.Input((length, 3), name="x")
        y = layers.Dense(2)(getattr(layers, layer)(24)(x))
        cost = pg.inspect(keras.Model(x, y), probes=pg.InputGradient(target=1), sizes=sizes).cost
        assert cost.uncounted == {}
        return cost[0]

    of_length = {n: told(None, {"x": (n, 3)}) for n in (40, 200)}
    fixed = told(40)
    assert of_length[40].multiply_adds == pytest.approx(fixed.multiply_adds, rel=0.01)
    assert of_length[40].time == pytest.approx(fixed.time, rel=0.05)
    grown = of_length[200].multiply_adds / of_length[40].multiply_adds
    assert 4.0 < grown < 6.0
    assert fixed.time > 1.5
