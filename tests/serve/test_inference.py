"""From the bytes of a request to those of a response, beside the artefact as Python calls it."""

import json
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import ArtefactError
from probegen.serve.description import model_metadata, server_metadata
from probegen.serve.inference import Served, batch_key, divided, infer, merged, prepare
from probegen.serve.protocol import read_request
from tests.runtime.support import images
from tests.serve.conftest import noise
from tests.serve.linear import words_artefact
from tests.serve.support import as_binary, as_json, read

ALL = ["animal", "input_gradient/image", "saliency/image"]


def answered(served, body, json_length=None):
    reply = infer(served, body, json_length)
    assert reply.status == 200, reply.body
    return read(reply.body, reply.json_length)


def refused(served, body, json_length=None):
    reply = infer(served, body, json_length)
    assert reply.status == 400
    return json.loads(reply.body)["error"]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", ["json", "nested", "binary"])
@pytest.mark.parametrize("which", ["zoo", "split"])
def test_the_numbers_of_the_artefact(request, which, form, batch):
    served = request.getfixturevalue(which)
    x = images(batch, seed=batch)
    more = {"parameters": {"explain": True, "target": 2}}
    if form == "binary":
        body, length = as_binary({"image": x}, **more)
        content, found = answered(served, body, length)
    else:
        content, found = answered(served, as_json({"image": x}, nested=form == "nested", **more))
    assert list(found) == ALL
    expected = served.artefact.run(x, target=2)
    for name in ALL:
        np.testing.assert_array_equal(found[name], expected[name].array)
    assert (content["model_name"], content["model_version"]) == ("zoo", "1")


def test_without_explanations_unless_they_are_asked_for(zoo):
    x = {"image": images(2)}
    for more in ({}, {"parameters": {"explain": False}}, {"parameters": {"explain": "false"}}):
        assert list(answered(zoo, as_json(x, **more))[1]) == ["animal"]
    for explain in (True, "true"):
        assert list(answered(zoo, as_json(x, parameters={"explain": explain}))[1]) == ALL
    as_tensor = {**x, "explain": np.array([True])}
    assert list(answered(zoo, as_json(as_tensor))[1]) == ALL


def test_outputs_by_name(zoo):
    x = images(2)
    wanted = ["saliency/image", "animal"]
    content, found = answered(zoo, as_json({"image": x}, wanted))
    assert list(found) == wanted  # naming an explanation asks for it
    assert all("data" in output for output in content["outputs"])
    np.testing.assert_array_equal(
        found["saliency/image"], zoo.artefact.run(x)["saliency/image"].array
    )
    body = as_json({"image": x}, ["animal"], parameters={"explain": True})
    assert list(answered(zoo, body)[1]) == ["animal"]


def test_binary_outputs_by_name_and_for_all(zoo):
    x = {"image": images(3)}
    expected = zoo.artefact.run(x["image"])
    request = json.loads(as_json(x, ["animal", "saliency/image"]))
    request["outputs"][1]["parameters"] = {"binary_data": True}
    content, found = answered_with_length(zoo, request)
    assert [set(o) - {"name", "shape", "datatype"} for o in content["outputs"]] == [
        {"data"},
        {"parameters"},
    ]
    np.testing.assert_array_equal(found["saliency/image"], expected["saliency/image"].array)
    request["parameters"] = {"binary_data_output": True}
    request["outputs"][1]["parameters"] = {"binary_data": False}
    content, found = answered_with_length(zoo, request)
    assert "data" in content["outputs"][1]
    np.testing.assert_array_equal(found["animal"], expected["animal"].array)


def answered_with_length(served, request):
    reply = infer(served, json.dumps(request).encode())
    assert reply.status == 200
    assert reply.json_length is not None
    return read(reply.body, reply.json_length)


def test_targets(zoo):
    x = images(3, seed=4)
    for target, same in [("cat", 2), ([0, 3, -1], [0, 3, -1]), (["bee", 2, -1], [1, 2, -1])]:
        body = as_json({"image": x}, parameters={"explain": True, "target": target})
        _, found = answered(zoo, body)
        expected = zoo.artefact.run(x, target=same)
        for name in ALL:
            np.testing.assert_array_equal(found[name], expected[name].array)
    asked = {"image": x, "target": np.array([0, 3, -1], np.int64)}
    body, length = as_binary(asked, parameters={"explain": True})
    expected = zoo.artefact.run(x, target=[0, 3, -1])["saliency/image"].array
    np.testing.assert_array_equal(answered(zoo, body, length)[1]["saliency/image"], expected)


def test_a_region_and_groups(positions):
    x, region = noise(2, 7, 3), np.abs(noise(2, 7))
    groups = np.arange(14, dtype=np.int32).reshape(2, 7) % 3
    expected = positions.artefact.run(x, region=region, groups=groups)
    inputs = {"series": x, "region": region, "groups": groups}
    body, length = as_binary(inputs, parameters={"explain": True})
    lists = {"explain": True, "region": region.tolist(), "groups": groups.tolist()}
    for found in (
        answered(positions, body, length)[1],
        answered(positions, as_json({"series": x}, parameters=lists))[1],
    ):
        assert set(found) == set(expected)
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name].array)
    assert "takes groups" in refused(
        positions, as_json({"series": x}, parameters={"explain": True})
    )


def test_ids(zoo):
    x = {"image": images(1)}
    assert answered(zoo, as_json(x, id="mine"))[0]["id"] == "mine"
    made = {answered(zoo, as_json(x, **more))[0]["id"] for more in ({}, {}, {"id": ""})}
    assert len(made) == 3
    assert all(made)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8"])
def test_inputs_of_other_types(zoo, dtype):
    x = (images(2) * 3).astype(dtype) if dtype != "uint8" else np.abs(images(2) * 9).astype(dtype)
    body, length = as_binary({"image": x})
    expected = zoo.artefact.run(x, explain=False)["animal"].array
    np.testing.assert_array_equal(answered(zoo, body, length)[1]["animal"], expected)


def test_nan_and_infinity_go_through_as_bytes_and_are_null_in_json(zoo):
    x = images(2)
    x[0, 0, 0, 0] = np.nan
    body, length = as_binary({"image": x})
    reply = infer(zoo, body, length)
    (output,) = json.loads(reply.body)["outputs"]
    assert output["data"][:4] == [None] * 4
    assert output["parameters"] == {"not_finite": 4}
    body, length = as_binary({"image": x}, ["animal"])
    assert np.isnan(answered(zoo, body, length)[1]["animal"][0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"explian": True}}, "no parameter 'explian'. Did you mean 'explain'?"),
        ({"parameters": {"explain": "maybe"}}, "explain is 'maybe'; expected true or false"),
        ({"parameters": {"explain": 1}}, "explain is '1'; expected true or false"),
        ({"parameters": {"target": 4}}, "legal are 0 to 3"),
        ({"parameters": {"target": "cow"}}, "there is no class 'cow'"),
        ({"parameters": {"target": [1, 2, 3]}}, "3 entries for a batch of 2"),
        ({"parameters": {"target": {"a": 1}}}, "the target {'a': 1} is a dict"),
        ({"parameters": {"region": [1]}}, "the artefact takes none"),
        ({"parameters": {"groups": [1]}}, "the artefact takes none"),
        ({"parameters": [1]}, "the parameters of the request are no object"),
        ({"outputs": [{"name": "animals"}]}, "no output 'animals'. Did you mean 'animal'?"),
        ({"outputs": [{"name": "animal"}] * 2}, "the output 'animal' stands there twice"),
        (
            {"outputs": [{"name": "animal", "parameters": {"classification": 2}}]},
            "'classification', which is of an extension that this server does not have",
        ),
        ({"outputs": [{}]}, "an output has no name"),
        ({"outputs": "animal"}, "outputs are no list of objects"),
        (
            {"outputs": [{"name": "saliency/image"}], "parameters": {"explain": False}},
            "is an explanation, and explain is false",
        ),
        ({"inputs": []}, "has no inputs"),
        ({"inputs": None}, "has no inputs"),
        ({"id": 3}, "the request's id is '3'; expected text"),
    ],
)
def test_requests_that_do_not_fit(zoo, change, message):
    body = json.loads(as_json({"image": images(2)}))
    assert message in refused(zoo, json.dumps({**body, **change}).encode())


def test_inputs_that_do_not_fit(zoo):
    x = images(2)
    assert "no input 'picture'" in refused(zoo, as_json({"picture": x}))
    assert "has the size 6 on the axis 'height'" in refused(
        zoo, as_json({"image": np.zeros((2, 6, 7, 3), np.float32)})
    )
    assert "stands there twice" in refused(
        zoo, json.dumps({"inputs": json.loads(as_json({"image": x}))["inputs"] * 2}).encode()
    )
    both = {"image": x, "target": np.int32([1, 1])}
    assert "both as a parameter and as an input" in refused(
        zoo, as_json(both, parameters={"target": 1})
    )


def test_bodies_that_are_none(zoo):
    body, length = as_binary({"image": images(2)})
    assert "no JSON" in refused(zoo, b"")
    assert "no JSON" in refused(zoo, body)  # without the header
    assert "no JSON" in refused(zoo, b"[" * 100_000)
    assert "no JSON object" in refused(zoo, b"[]")
    good = as_json({"image": images(1)})
    for depth in range(880, 1000, 2):  # some can be read, and not be told of
        deep = b'{"parameters": {"target": %b1%b}, ' % (b"[" * depth, b"]" * depth)
        message = refused(zoo, deep + good[1:])
        said = ("is a list", "nested too deeply", "no JSON")
        assert any(part in message for part in said), message
    for wrong in ("-1", "9999999", "x", "1.5", "\u0661"):
        assert "Inference-Header-Content-Length" in refused(zoo, body, wrong)
    assert "are left of the body" in refused(zoo, body[:-1], length)
    assert "belong to no input" in refused(zoo, body + b"\0", length)
    changed = json.loads(body[:length])
    changed["inputs"][0]["parameters"]["binary_data_size"] = "588"
    text = json.dumps(changed).encode()
    assert "'588'; expected a whole number" in refused(zoo, text + body[length:], len(text))
    changed = json.loads(body[:length])
    changed["inputs"][0]["data"] = [1]
    text = json.dumps(changed).encode()
    assert "both data and" in refused(zoo, text + body[length:], len(text))
    del changed["inputs"][0]["parameters"], changed["inputs"][0]["data"]
    assert "neither data nor" in refused(zoo, json.dumps(changed).encode())


def test_parameters_of_others_are_let_pass(zoo):
    more = {"parameters": {"priority": 3, "sequence_id": "a", "headers": {"x": 1}}}
    assert list(answered(zoo, as_json({"image": images(1)}, **more))[1]) == ["animal"]


def test_a_model_that_cannot_be_served():
    spec = SimpleNamespace(name="spectrum", dtype="complex64")
    artefact = SimpleNamespace(path="m.onnx", inputs=[], outputs=[spec])
    with pytest.raises(ArtefactError, match="'spectrum' is of complex64, for which the Open"):
        Served(artefact, "m")


def test_a_library_that_takes_texts_apart_is_missed_before_the_first_request(tmp_path, monkeypatch):
    path = words_artefact(tmp_path)
    served = Served(runtime.load(path), "words")
    asked = {"text": np.array(["good bad", "good good"])}
    np.testing.assert_array_equal(
        answered(served, as_json(asked))[1]["scores"], [[-0.5, 0.5], [1.0, -1.0]]
    )
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ArtefactError, match=r"cannot be served: .*pip install 'probegen\[text\]'"):
        Served(runtime.load(path), "words")


def test_text(tmp_path):
    """Strings come in the place of the ids that the graph takes, as JSON and as bytes."""
    texts = ["a good film", "so so"]
    x = keras.Input((), dtype="string", name="text")
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=6, name="words")
    words.adapt(texts)
    y = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4, name="embedding")(words(x)))
    model = keras.Model(x, layers.Dense(2, name="kind")(y), name="words")
    pg.compile(model, pg.Saliency(), tmp_path / "words.onnx", verify=False)
    served = Served(runtime.load(tmp_path / "words.onnx"), "words")
    told = model_metadata(served)["parameters"]["request"]["text"]
    assert told == {"datatype": "BYTES", "shape": [-1]}
    expected = served.artefact.run(texts)
    asked = {"text": np.array(texts)}
    body, length = as_binary(asked, parameters={"explain": True})
    for found in (
        answered(served, body, length)[1],
        answered(served, as_json(asked, parameters={"explain": True}))[1],
    ):
        for name, record in expected.items():
            np.testing.assert_allclose(found[name], record.array, rtol=1e-6)
    assert "expected ['batch']" in refused(served, as_json({"text": np.array([texts])}))


# -- batches -----------------------------------------------------------------------------------


def test_merged_and_divided(positions):
    bodies = [
        as_binary(
            {
                "series": noise(rows, 7, 3, seed=rows),
                "groups": np.zeros((rows, 7), np.int32) + rows,
            },
            parameters={"explain": True},
        )
        for rows in (1, 3, 2)
    ]
    jobs = [prepare(positions, read_request(*body)) for body in bodies]
    assert len({batch_key(positions, job) for job in jobs}) == 1
    assert [job.rows for job in jobs] == [1, 3, 2]
    arrays = positions.artefact.compute(merged(positions, jobs), jobs[0].outputs)
    parts = divided(positions, jobs, arrays)
    for job, part in zip(jobs, parts, strict=True):
        alone = positions.artefact.compute(job.feeds, job.outputs)
        assert set(part) == set(alone)
        for name, array in alone.items():
            np.testing.assert_allclose(part[name], array, rtol=1e-5, atol=1e-6)


def test_what_goes_into_other_batches(positions):
    def key(length, explain):
        x = {"series": noise(2, length, 3)}
        more = {"explain": explain, **({"groups": [[0] * length] * 2} if explain else {})}
        return batch_key(positions, prepare(positions, read_request(as_json(x, parameters=more))))

    assert len({key(length, explain) for length in (5, 7) for explain in (True, False)}) == 4
    assert key(5, True) == key(5, True)


# -- metadata ----------------------------------------------------------------------------------


def test_metadata_of_a_model(zoo, positions):
    told = model_metadata(zoo)
    assert json.loads(json.dumps(told)) == told
    assert (told["name"], told["versions"], told["platform"]) == ("zoo", ["1"], "probegen")
    assert told["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 5, 7, 3]}]
    assert told["outputs"][2] == {"name": "saliency/image", "datatype": "FP32", "shape": [-1, 5, 7]}
    own = told["parameters"]["request"]
    assert own["explain"] == {"datatype": "BOOL", "shape": [], "default": False}
    assert own["target"] == {"datatype": "INT32", "shape": [-1], "default": -1, "classes": 4}
    meaning = told["parameters"]["meaning"]["saliency/image"]
    assert meaning["axes"] == ["batch", "height", "width"]
    assert meaning["title"] == "Saliency"
    assert told["parameters"]["class_names"] == ["ant", "bee", "cat", "dog"]
    assert len(told["parameters"]["sha256"]) == 64
    own = model_metadata(positions)["parameters"]["request"]
    assert own["region"] == {"datatype": "FP32", "shape": [-1, -1]}
    assert own["groups"] == {"datatype": "INT32", "shape": [-1, -1]}
    assert server_metadata()["extensions"] == ["binary_tensor_data"]


def test_photos_as_bytes_of_any_size(tmp_path):
    """An artefact that preprocesses pictures takes what the server was sent."""
    keras.utils.set_random_seed(2)
    photo = keras.Input((9, 7, 3), name="photo")
    x = layers.Conv2D(4, 3, activation="relu")(photo)
    model = keras.Model(photo, layers.Dense(3, name="kind")(layers.GlobalAveragePooling2D()(x)))
    path = tmp_path / "p.onnx"
    image = pg.ImageInput(preset="tf", attributions="input")
    pg.compile(model, [pg.Saliency(target="input")], path, preprocess=image, verify=False)
    served = Served(runtime.load(path, threads=1), "photos")
    assert model_metadata(served)["inputs"][0] == {
        "name": "photo", "datatype": "UINT8", "shape": [-1, -1, -1, 3],
    }  # fmt: skip
    jobs = []
    for size in ((2, 20, 13, 3), (1, 5, 31, 3)):
        x = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        more = {"parameters": {"explain": True, "target": 1}}
        body, length = as_binary({"photo": x}, **more)
        _, found = answered(served, body, length)
        expected = served.artefact.run(x, target=1)
        assert found["saliency/photo"].shape == size[:3]
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name].array)
        jobs.append(prepare(served, read_request(body, length)))
    assert batch_key(served, jobs[0]) != batch_key(served, jobs[1])
    x = np.zeros((1, 5, 6, 3), np.float32) + 0.5
    body, length = as_binary({"photo": x})
    assert "photo" in refused(served, body, length)
