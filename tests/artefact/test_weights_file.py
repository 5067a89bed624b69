"""Artefacts of two files: written, replaced, moved and opened as one."""

import functools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from keras import layers
from onnx.reference import ReferenceEvaluator

import probegen as pg
from probegen import cli, runtime
from probegen.artefact import integrity, publishing, weights_file
from probegen.artefact.publishing import aside, put
from probegen.artefact.work_folder import sweep
from probegen.errors import (
    ArtefactError,
    ExportError,
    OutputExistsError,
    VerificationError,
    WriteError,
)
from probegen.graph.external_data import wants_external_data, write_external_data
from probegen.runtime.files import write_atomic
from tests import models

SHAPE = (2, 11, 8)


@functools.cache
def network(seed):
    """An ONNX model of which two weights, of 9 and 1 kB, are written apart.

    Two seeds need different data of one size.
    """
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        wide (float[batch, 2, 11, 8] image) => (float[batch, 4] scores)
        {
            row = Flatten(image)
            a = Gemm(row, w)
            b = Tanh(a)
            c = Gemm(b, u)
            d = Tanh(c)
            e = Gemm(d, v)
            scores = Softmax(e)
        }""")
    rng = np.random.default_rng(seed)
    for name, shape in {"w": (176, 13), "u": (13, 20), "v": (20, 4)}.items():
        weight = rng.normal(size=shape).astype(np.float32) / 4
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return model


def export(seed, path, **options):
    """Compiles a network, without comparing the artefact with it unless that is asked for."""
    options = {"verify": False, **options}
    return pg.compile(network(seed), pg.Saliency(target=1), path, **options)


def expected_scores(seed):
    (found,) = ReferenceEvaluator(network(seed)).run(None, {"image": models.images(SHAPE, seed=5)})
    return found


@pytest.fixture(scope="module")
def probed():
    """An instrumented model of Keras."""
    x = keras.Input((5,), name="x")
    y = layers.Dense(6, activation="tanh")(x)
    y = layers.Dense(4, activation="softmax")(y)
    return pg.instrument(keras.Model(x, y), pg.Saliency(target=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A verified artefact with external data; not to be changed."""
    return export(1, tmp_path_factory.mktemp("made") / "big.onnx", external_data=True, verify=True)


@pytest.fixture
def artefact(made, tmp_path):
    """A copy of it, to be broken."""
    for path in (made.path, made.data):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "big.onnx"


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def scores(path, seed=5):
    return runtime.load(path).run(models.images(SHAPE, seed=seed), explain=False)["scores"].array


def tensors(path):
    """Name -> (offset, length) of the tensors that are written apart."""
    proto = onnx.load(path, load_external_data=False)
    found = {}
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            assert entries["location"] == "big.onnx.data"
            found[tensor.name] = (int(entries["offset"]), int(entries["length"]))
    return found


# -- writing -------------------------------------------------------------------------------


def test_both_files_hold_one_artefact(made):
    assert names(made.path.parent) == ["big.onnx", "big.onnx.data"]
    assert made.data == made.path.with_name("big.onnx.data")
    assert made.report.passed
    assert runtime.load(made.path).manifest.certificate["passed"]
    assert pg.verify(made.path, network(1)).passed
    onnx.checker.check_model(str(made.path), full_check=True)


def test_large_tensors_lie_apart_and_aligned(made):
    places = tensors(made.path)
    whole = onnx.load(made.path)
    sizes = {t.name: len(t.raw_data) for t in whole.graph.initializer}
    assert {name for name, size in sizes.items() if size >= 1024} == set(places)
    assert len(places) == 2
    end = weights_file.HEADER_BYTES
    for offset, length in sorted(places.values()):
        assert offset % 64 == 0
        assert offset >= end
        end = offset + length
    assert end == made.data.stat().st_size


def test_very_large_tensors_start_at_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("probegen.graph.external_data._SMALLEST", 100)
    monkeypatch.setattr("probegen.graph.external_data._LARGE", 3000)
    export(1, tmp_path / "big.onnx", external_data=True)
    places = tensors(tmp_path / "big.onnx").values()
    assert {length >= 3000 for _, length in places} == {True, False}
    assert all(offset % 2**16 == 0 for offset, length in places if length >= 3000)
    assert all(offset % 64 == 0 for offset, _ in places)
    np.testing.assert_allclose(
        scores(tmp_path / "big.onnx"),
        expected_scores(1),
        rtol=1e-5,
    )


def test_the_same_numbers_as_from_one_file(made, tmp_path):
    one = export(1, tmp_path / "one.onnx")
    assert one.data is None
    assert names(tmp_path) == ["one.onnx"]
    x = models.images(SHAPE)
    ours, theirs = runtime.load(made.path).run(x), runtime.load(one.path).run(x)
    for name in ("scores", "saliency/image"):
        np.testing.assert_array_equal(ours[name].array, theirs[name].array)


def test_the_same_model_gives_the_same_files(made, tmp_path):
    again = export(1, tmp_path / "big.onnx", external_data=True, verify=True)
    assert again.data.read_bytes() == made.data.read_bytes()


def test_size_decides_where_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("probegen.graph.external_data.PROTOBUF_LIMIT", 1500)
    monkeypatch.setattr("probegen.graph.external_data._ROOM", 100)
    exported = export(1, tmp_path / "m.onnx")
    assert exported.data == tmp_path / "m.onnx.data"
    monkeypatch.setattr("probegen.graph.external_data.PROTOBUF_LIMIT", 100_000)
    assert export(1, tmp_path / "m.onnx").data is None
    assert names(tmp_path) == ["m.onnx"]


def test_refused_where_one_file_cannot_hold_it(tmp_path, monkeypatch):
    monkeypatch.setattr("probegen.graph.external_data.PROTOBUF_LIMIT", 1500)
    with pytest.raises(ExportError, match=r"limit for one ONNX file.*external_data=False"):
        export(1, tmp_path / "m.onnx", external_data=False)
    assert not names(tmp_path)


def test_strings_stay_in_the_model(tmp_path):
    words = ir.Value(name="words", const_value=ir.tensor(np.array(["a", "b"] * 999), name="words"))
    numbers = ir.Value(name="numbers", const_value=ir.tensor(np.arange(999), name="numbers"))
    graph = ir.Graph([], [words, numbers], nodes=[], initializers=[words, numbers])
    model = ir.Model(graph, ir_version=10)
    assert not wants_external_data(model, None)
    write_external_data(model, tmp_path / "m.onnx")
    assert isinstance(numbers.const_value, ir.ExternalTensor)
    assert not isinstance(words.const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(numbers.const_value.numpy(), np.arange(999))


def test_a_failed_verification_leaves_the_old_artefact(artefact, probed, monkeypatch):
    before = scores(artefact)
    monkeypatch.setattr("probegen.parity.comparison.TOLERANCES", {"float32": 0.0})
    with pytest.raises(VerificationError):
        pg.export(probed, artefact, external_data=True)
    assert names(artefact.parent) == ["big.onnx", "big.onnx.data"]
    np.testing.assert_array_equal(scores(artefact), before)


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = keras.Input((7, 5, 2), name="image")
    y = layers.Conv2D(9, 3, activation="tanh")(x)
    y = layers.Dense(13, activation="tanh")(layers.Flatten()(y))
    keras.Model(x, layers.Dense(4, activation="softmax")(y)).save("m.keras")
    np.save("x.npy", models.images((7, 5, 2)))

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        out, err = capsys.readouterr()
        return out if ended.value.code == 0 else err

    told = json.loads(
        command("compile", "m.keras", "-o", "big.onnx", "--saliency", "--external-data", "--json")
    )
    assert told["data"] == "big.onnx.data"
    assert told["bytes"] == sum(p.stat().st_size for p in tmp_path.glob("big.onnx*"))
    assert "agrees" in command("verify", "big.onnx", "--against", "m.keras")
    assert "saliency/image" in command("run", "big.onnx", "x.npy")
    (tmp_path / "big.onnx.data").unlink()
    assert "keeps its weights in 'big.onnx.data'" in command("run", "big.onnx", "x.npy")


# -- replacing -----------------------------------------------------------------------------


def test_another_build_replaces_both_files(artefact):
    export(2, artefact, external_data=True)
    assert names(artefact.parent) == ["big.onnx", "big.onnx.data"]
    np.testing.assert_allclose(scores(artefact), expected_scores(2), rtol=1e-5)


def test_data_that_nothing_needs_any_more_are_removed(artefact):
    export(2, artefact)
    assert names(artefact.parent) == ["big.onnx"]
    assert scores(artefact).shape == (3, 4)


def test_data_of_something_else_are_kept(tmp_path):
    other = tmp_path / "big.onnx.data"
    other.write_text("precious")
    export(1, tmp_path / "big.onnx")
    with pytest.raises(OutputExistsError, match=r"big\.onnx\.data.*does not belong.*overwrite"):
        export(1, tmp_path / "big.onnx", external_data=True)
    assert names(tmp_path) == ["big.onnx", "big.onnx.data"]
    assert other.read_text() == "precious"
    export(1, tmp_path / "big.onnx", external_data=True, overwrite=True)
    assert scores(tmp_path / "big.onnx").shape == (3, 4)


def test_data_of_a_renamed_artefact_are_kept(artefact):
    kept = artefact.rename(artefact.with_name("kept.onnx"))
    before = scores(kept)
    with pytest.raises(OutputExistsError, match="does not belong"):
        export(2, artefact, external_data=True)
    export(1, artefact, external_data=True)  # the same data serve both
    export(2, artefact.with_name("other.onnx"))
    np.testing.assert_array_equal(scores(kept), before)
    np.testing.assert_array_equal(scores(artefact), before)


def test_a_folder_is_no_place_for_data(tmp_path):
    (tmp_path / "big.onnx.data").mkdir()
    with pytest.raises(OutputExistsError, match="is a folder"):
        export(1, tmp_path / "big.onnx", external_data=True, overwrite=True)
    assert names(tmp_path) == ["big.onnx.data"]


class Crash(BaseException):
    """What no handler of errors catches, like Ctrl-C."""


def watch_renames(monkeypatch, before, after=lambda: None):
    """Calls `before` and `after` around each rename of a file or folder."""

    def watched(real):
        def rename(source, target):
            before()
            real(source, target)
            after()

        return rename

    for name in ("rename", "replace"):
        monkeypatch.setattr(publishing.os, name, watched(getattr(os, name)))


def crash_at(monkeypatch, number):
    """Lets the rename of that number fail, counted from 0; those that undo others work."""
    count = iter(range(100))

    def crash():
        if next(count) == number:
            raise Crash

    watch_renames(monkeypatch, crash)


@pytest.mark.parametrize("number", range(4))
def test_a_crash_while_moving_leaves_the_old_artefact(artefact, monkeypatch, number):
    before = scores(artefact)
    with monkeypatch.context() as patch:
        crash_at(patch, number)
        with pytest.raises(Crash):
            export(2, artefact, external_data=True)
    assert names(artefact.parent) == ["big.onnx", "big.onnx.data"]
    np.testing.assert_array_equal(scores(artefact), before)


@pytest.mark.parametrize("number", range(2))
def test_a_crash_while_moving_leaves_nothing_where_nothing_was(tmp_path, monkeypatch, number):
    crash_at(monkeypatch, number)
    with pytest.raises(Crash):
        export(1, tmp_path / "new" / "big.onnx", external_data=True)
    assert not names(tmp_path)


def test_no_model_ever_lies_beside_data_of_another_build(artefact, monkeypatch):
    """At every step a reader finds the old artefact, no model, or the new one."""
    states = []

    def look():
        if not artefact.exists():
            states.append("none")
            return
        known = weights_file.data_of(artefact)
        weights_file.check_data(artefact, known)
        states.append(known.sha256)

    watch_renames(monkeypatch, look, look)
    old = weights_file.data_of(artefact).sha256
    export(2, artefact, external_data=True)
    new = weights_file.data_of(artefact).sha256
    assert list(dict.fromkeys(states)) == [old, "none", new]


def test_a_folder_is_taken_back_too(probed, tmp_path, monkeypatch):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_text("precious")
    with monkeypatch.context() as patch:
        crash_at(patch, 1)
        with pytest.raises(Crash):
            pg.export(probed, tmp_path / "saved", overwrite=True, verify=False)
    assert names(tmp_path) == ["saved"]
    assert names(tmp_path / "saved") == ["mine"]


# -- moving and opening --------------------------------------------------------------------


def test_moved_together_they_work(artefact, tmp_path):
    before = scores(artefact)
    there = tmp_path / "far" / "away"
    there.mkdir(parents=True)
    for name in ("big.onnx", "big.onnx.data"):
        (tmp_path / name).rename(there / name)
    np.testing.assert_array_equal(scores(there / "big.onnx"), before)
    (there / "big.onnx").rename(there / "v2.onnx")
    np.testing.assert_array_equal(scores(there / "v2.onnx"), before)


def test_missing_data(artefact):
    data = weights_file.data_path(artefact)
    size = data.stat().st_size
    data.unlink()
    with pytest.raises(ArtefactError, match=rf"'big\.onnx\.data', {size} bytes, and there is no "
                       r"such file.*copy both.*export it again"):  # fmt: skip
        runtime.load(artefact)


@pytest.mark.parametrize(("change", "says"), [(-40, "cut short"), (7, "changed")])
def test_data_of_another_size(artefact, change, says):
    data = weights_file.data_path(artefact)
    size = data.stat().st_size
    os.truncate(data, size + change)
    with pytest.raises(ArtefactError, match=rf"big\.onnx\.data' has {size + change} bytes.*written "
                       rf"with {size}: it was {says}.*copy both"):  # fmt: skip
        runtime.load(artefact)


def test_empty_data(artefact):
    os.truncate(weights_file.data_path(artefact), 0)
    with pytest.raises(ArtefactError, match="has 0 bytes"):
        runtime.load(artefact)


def test_data_of_another_build(artefact, tmp_path):
    other = export(2, tmp_path / "other" / "big.onnx", external_data=True)
    other.data.replace(weights_file.data_path(artefact))
    known, found = weights_file.data_of(artefact).sha256, weights_file.data_of(other.path).sha256
    with pytest.raises(ArtefactError, match=rf"of another build \({found[:12]}\); expected the "
                       rf"data {known[:12]}.*copy both"):  # fmt: skip
        runtime.load(artefact)


def test_data_of_another_program(artefact):
    data = weights_file.data_path(artefact)
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(ArtefactError, match="none that probegen wrote"):
        runtime.load(artefact)


def test_the_data_file_is_no_artefact(made):
    with pytest.raises(ArtefactError, match=r"holds the weights.*open the artefact.*'big\.onnx'"):
        runtime.load(made.data)


def test_metadata_that_reach_outside_are_refused(artefact):
    proto = onnx.load(artefact, load_external_data=False)
    for entry in proto.metadata_props:
        if entry.key == weights_file.METADATA_KEY:
            entry.value = entry.value.replace("big.onnx.data", "../secret")
    artefact.write_bytes(proto.SerializeToString())
    with pytest.raises(ArtefactError, match=r"names? '\.\./secret'; expected the name of a file"):
        runtime.load(artefact)


def test_another_program_may_join_the_two_files(artefact):
    before = scores(artefact)
    onnx.save(onnx.load(artefact), artefact.with_name("one.onnx"))
    weights_file.data_path(artefact).unlink()
    np.testing.assert_array_equal(scores(artefact.with_name("one.onnx")), before)


def test_metadata_are_read_without_reading_the_graph(made, tmp_path):
    known = weights_file.data_of(made.path)
    assert known.size == made.data.stat().st_size
    assert known.sha256 == weights_file.read_sha256(made.data)
    whole = made.path.read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "cut.onnx").write_bytes(whole[:size])
        assert weights_file.data_of(tmp_path / "cut.onnx") in (None, known)
    (tmp_path / "text.onnx").write_text("no model at all " * 9)
    assert weights_file.data_of(tmp_path / "text.onnx") is None


def test_opened_without_tensorflow_and_onnx(made):
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir"}}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import numpy as np
from probegen import runtime
print(runtime.load({str(made.path)!r}).run(np.ones((2, 2, 11, 8)))["saliency/image"].array.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(2, 2, 11)", done.stderr


# -- what killed processes leave -----------------------------------------------------------


KILLED = """
import os, signal, sys
from pathlib import Path
from probegen import runtime
from probegen.artefact import publishing
from probegen.artefact.publishing import aside, put
final = Path(sys.argv[1])
if sys.argv[2] == "making":
    with aside(final) as place:
        place.write_bytes(bytes(1000))
        os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "moving":
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with aside(final) as place:
        for name in (place, place.with_name(place.name + ".data")):
            name.write_bytes(bytes(1000))
        put(place, final)
if sys.argv[2] == "writing":
    from probegen.runtime.files import write_atomic
    def fill(file):
        file.write(bytes(1000))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write_atomic(final, fill)
"""


def killed(path, how):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), how], check=False)
    assert done.returncode == -9
    return [p for p in path.parent.iterdir() if p.name.startswith(".probegen-")]


@pytest.mark.parametrize("how", ["making", "writing"])
def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path, how):
    assert len(killed(tmp_path / "m.onnx", how)) == 1
    with aside(tmp_path / "m.onnx") as place:
        place.write_text("new")
        assert len(names(tmp_path)) == 1
        put(place, tmp_path / "m.onnx")
    assert names(tmp_path) == ["m.onnx"]
    killed(tmp_path / "m.onnx", how)
    write_atomic(tmp_path / "other.html", lambda file: file.write(b"page"))
    assert names(tmp_path) == ["m.onnx", "other.html"]


@pytest.mark.parametrize("found_by", ["an export that fails", "opening it"])
def test_what_was_replaced_when_it_was_killed_comes_back(artefact, tmp_path, found_by):
    before = scores(artefact)
    (left,) = killed(artefact, "moving")
    assert not artefact.exists()
    if found_by == "opening it":
        runtime.load(artefact, check=True)
    else:
        with pytest.raises(Crash), aside(artefact):
            raise Crash
    assert not left.exists()
    assert names(tmp_path) == ["big.onnx", "big.onnx.data"]
    np.testing.assert_array_equal(scores(artefact), before)


def test_nothing_foreign_and_nothing_alive_is_swept(tmp_path):
    kept = [tmp_path / ".probegen-abcdefgh", tmp_path / ".m.onnx.abcd1234"]
    for folder in kept:
        folder.mkdir()
        (folder / "precious").write_text("mine")
    other = tmp_path / ".probegen-aaaaaaaa"
    other.mkdir()
    (other / "lock").write_text('{"what": "something else", "for": "m.onnx"}')
    link = tmp_path / ".probegen-bbbbbbbb"
    link.symlink_to(kept[1])
    with aside(tmp_path / "one") as first, aside(tmp_path / "two"):
        first.write_text("alive")
        write_atomic(tmp_path / "page", lambda _: sweep(tmp_path))
        assert first.exists()
    assert names(tmp_path) == sorted([*(k.name for k in kept), other.name, link.name, "page"])


# -- names, links and permissions ----------------------------------------------------------


def test_long_names(probed, tmp_path):
    longest = tmp_path / ("n" * 250 + ".onnx")
    export(1, longest)
    assert names(tmp_path) == [longest.name]
    assert scores(longest).shape == (3, 4)
    runtime.load(longest).run(models.images(SHAPE)).to_npz(tmp_path / ("r" * 251 + ".npz"))
    with pytest.raises(WriteError, match=r"has 260 bytes with its '\.data' beside it.*up to 255"):
        export(1, longest, external_data=True)
    says = []
    with pytest.raises(WriteError, match=r"has 256 bytes; .* takes names of up to 255"):
        pg.export(probed, tmp_path / ("n" * 251 + ".onnx"), progress=says.append)
    assert says == []
    with pytest.raises(WriteError, match="has 256 bytes"):
        runtime.load(longest).run(models.images(SHAPE)).to_html(tmp_path / ("r" * 251 + ".html"))


def test_links_are_followed(probed, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    link = tmp_path / "link.onnx"
    link.symlink_to(store / "v1.onnx")
    exported = export(2, link, external_data=True)
    assert exported.path == link
    assert link.is_symlink()
    assert names(store) == ["v1.onnx", "v1.onnx.data"]
    np.testing.assert_allclose(scores(link), expected_scores(2), rtol=1e-5)
    runtime.load(link, check=True)
    page = tmp_path / "page.html"
    page.symlink_to(store / "real.html")
    for title in ("one", "two"):
        runtime.load(link).run(models.images(SHAPE)[:1]).to_html(page, samples=0, title=title)
        assert page.is_symlink()
        assert title in (store / "real.html").read_text()
    folder = tmp_path / "saved"
    (store / "saved").mkdir()
    folder.symlink_to(store / "saved")
    pg.export(probed, folder, overwrite=True, verify=False)
    assert folder.is_symlink()
    assert (store / "saved" / "saved_model.pb").exists()


def test_links_into_a_store_of_contents(artefact, tmp_path):
    """As the cache of a model hub lays them: both files are links, to names of another kind."""
    place = tmp_path / "snapshot"
    (place / "blobs").mkdir(parents=True)
    for file in (artefact, weights_file.data_path(artefact)):
        blob = place / "blobs" / str(file.stat().st_size)
        blob.write_bytes(file.read_bytes())
        (place / file.name).symlink_to(blob)
    integrity.check(place / "big.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folders_without_permission(probed, tmp_path):
    tmp_path.chmod(0o500)
    says = []
    with pytest.raises(WriteError, match="no permission to write into"):
        pg.export(probed, tmp_path / "m.onnx", progress=says.append)
    assert says == []
