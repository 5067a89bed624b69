"""Exports that are killed, that find the disk full, and that meet: the old or the new, whole."""

import functools
import gc
import os
import resource
import signal
import subprocess
import time
import types

import numpy as np
import onnx
import onnx.parser
import pytest

import probegen as pg
from probegen import runtime
from probegen.artefact import publishing, work_folder
from probegen.errors import WriteError
from probegen.runtime.certified import ChangedArtefactWarning

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

FORMS = {
    "one file": {"gate": False},
    "with data": {"external_data": True},
    "two graphs": {"gate": "split"},
}
FEED = np.linspace(-1, 1, 14, dtype=np.float32).reshape(2, 7)


def network(seed):
    """A dense network whose weights are large enough to be written apart."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        small (float[batch, 7] x) => (float[batch, 3] y)
        <float[7, 90] one, float[90, 3] two>
        { a = MatMul (x, one)  b = Tanh (a)  c = MatMul (b, two)  y = Softmax (c) }
    """)
    rng = np.random.default_rng(seed)
    for name, shape in (("one", (7, 90)), ("two", (90, 3))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def export(seed, path, form):
    pg.compile(network(seed), [pg.Saliency()], path, verify=False, **FORMS[form])


def numbers(path):
    """What a checked artefact answers, with explanations."""
    art = runtime.load(path, check=True, threads=1)
    return {name: record.array for name, record in art.run(FEED).items()}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Seed and form -> what the artefact of that seed answers."""
    folder = tmp_path_factory.mktemp("right")
    found = {}
    for form in FORMS:
        for seed in (1, 2):
            export(seed, folder / "m.onnx", form)
            found[seed, form] = numbers(folder / "m.onnx")
    return found


def seed_of(path, form, answers):
    """Which of the two artefacts lies somewhere, to the last bit."""
    found = numbers(path)
    same = [
        seed
        for seed in (1, 2)
        if all(np.array_equal(found[n], a) for n, a in answers[seed, form].items())
    ]
    assert len(same) == 1
    return same[0]


def forked(work):
    """Does something in a process of its own; returns its number."""
    child = os.fork()
    if not child:
        gc.freeze()  # sessions of the parent that end here wait for threads that only it has
        try:
            work()
        finally:
            os._exit(0)
    return child


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def check_and_export_again(path, form, answers, allowed):
    """The artefact is one of two, whole; and the next export leaves nothing but its own files."""
    assert seed_of(path, form, answers) in allowed
    export(1, path, form)
    assert seed_of(path, form, answers) == 1
    right = {"one file": [], "with data": ["m.onnx.data"]}.get(
        form, ["m.explain.onnx", "m.onnx.data"]
    )
    assert names(path.parent) == sorted(["m.onnx", *right])


@pytest.mark.parametrize("form", FORMS)
def test_killed_at_random_moments(tmp_path, answers, form):
    path = tmp_path / "m.onnx"
    export(1, path, form)
    start = time.monotonic()
    export(1, path, form)
    takes = time.monotonic() - start
    rng = np.random.default_rng(0)
    for _ in range(5):
        child = forked(lambda: export(2, path, form))
        time.sleep(rng.uniform(0, 1.5 * takes))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_and_export_again(path, form, answers, (1, 2))


def moves_until(monkeypatch, number, sent=signal.SIGKILL):
    """Sends the process a signal just before the move of that number."""
    count = iter(range(100))

    def watched(real):
        def move(*places):
            if next(count) == number:
                os.kill(os.getpid(), sent)
            real(*places)

        return move

    for name in ("rename", "replace"):
        monkeypatch.setattr(publishing.os, name, watched(getattr(os, name)))


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("old", ["one file", "with data", "two graphs", None])
@pytest.mark.parametrize("form", ["with data", "two graphs"])
def test_killed_between_any_two_moves(tmp_path, monkeypatch, answers, old, form, number):
    """Also where the artefact before had other files, or there was none."""
    path = tmp_path / "m.onnx"
    if old:
        export(1, path, old)

    def work():
        moves_until(monkeypatch, number)
        export(2, path, form)

    _, status = os.waitpid(forked(work), 0)
    work_folder.sweep(tmp_path)
    if not os.WIFSIGNALED(status):  # it has fewer moves
        assert seed_of(path, form, answers) == 2
    elif old:
        assert seed_of(path, old, answers) == 1
    else:
        assert not names(tmp_path)
    export(2, path, form)
    assert seed_of(path, form, answers) == 2
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_what_is_taken_back_is_held_against_its_digest(tmp_path, monkeypatch):
    """Loading takes back what a killed export moved away, and looks at it as at any other."""
    path = tmp_path / "m.onnx"
    pg.compile(network(1), [pg.Saliency()], path, **FORMS["with data"])

    def work():
        moves_until(monkeypatch, 1)
        export(2, path, "with data")

    os.waitpid(forked(work), 0)
    (away,) = tmp_path.glob(".probegen-*/old/m.onnx")
    model = onnx.load(away, load_external_data=False)
    model.doc_string = "written anew"
    onnx.save(model, away)
    with pytest.warns(ChangedArtefactWarning):
        assert runtime.load(path).manifest.certificate is None


@pytest.mark.parametrize("form", FORMS)
def test_killed_before_the_old_files_are_gone(tmp_path, monkeypatch, answers, form):
    """The new model is there; what the old one alone needed goes with the next export."""
    path = tmp_path / "m.onnx"
    export(1, path, "two graphs")

    def work():
        monkeypatch.setattr(work_folder.shutil, "rmtree", lambda *_, **__: os.kill(os.getpid(), 9))
        monkeypatch.setattr(publishing.Path, "unlink", lambda *_, **__: os.kill(os.getpid(), 9))
        export(2, path, form)

    os.waitpid(forked(work), 0)
    check_and_export_again(path, form, answers, (2,))


@pytest.mark.parametrize("moment", ["locking", "telling", "emptying", "removing"])
def test_killed_while_a_work_folder_is_made_or_removed(tmp_path, monkeypatch, answers, moment):
    path = tmp_path / "m.onnx"
    export(1, path, "one file")
    json_of_it = types.SimpleNamespace(**vars(work_folder.json))  # others write JSON before
    monkeypatch.setattr(work_folder, "json", json_of_it)
    target, name = {
        "locking": (work_folder, "_hold"),
        "telling": (json_of_it, "dumps"),
        "emptying": (work_folder.shutil, "rmtree"),
        "removing": (work_folder.Path, "rmdir"),
    }[moment]

    def work():
        monkeypatch.setattr(target, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        export(2, path, "one file")

    _, status = os.waitpid(forked(work), 0)
    assert os.WIFSIGNALED(status)
    assert len(names(tmp_path)) == 2
    check_and_export_again(path, "one file", answers, (1, 2))


def test_what_others_published_meanwhile_stays(tmp_path, monkeypatch, answers):
    """Killed between two moves, and another export came through before anybody swept."""
    path = tmp_path / "m.onnx"
    export(1, path, "with data")

    def work():
        moves_until(monkeypatch, 3)
        export(2, path, "with data")

    os.waitpid(forked(work), 0)
    assert not path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "sweep", lambda _: None)
        pg.compile(
            network(1), [pg.Saliency()], path, verify=False, external_data=True, overwrite=True
        )
    work_folder.sweep(tmp_path)
    assert seed_of(path, "with data", answers) == 1
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk(tmp_path, answers, form):
    """No file may grow beyond some bytes: any write may be the one that fails."""
    path = tmp_path / "m.onnx"
    export(1, path, form)

    def work(size):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            export(2, path, form)
        except WriteError:
            os._exit(3)

    for size in (0, 100, 700, 3000):
        _, status = os.waitpid(forked(functools.partial(work, size)), 0)
        assert os.waitstatus_to_exitcode(status) == 3
        check_and_export_again(path, form, answers, (1,))


def test_two_exports_to_one_place(tmp_path, answers):
    path = tmp_path / "m.onnx"
    for form in FORMS:
        export(1, path, form)
        children = [forked(lambda s=s, form=form: export(s, path, form)) for s in (1, 2, 2, 1)]
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        check_and_export_again(path, form, answers, (1, 2))


@pytest.mark.parametrize("number", range(1, 4))
@pytest.mark.parametrize("form", ["with data", "two graphs"])
def test_an_export_waits_for_the_moves_of_another(tmp_path, monkeypatch, answers, form, number):
    """One is held up between two moves, and the other comes to move its own files."""
    path = tmp_path / "m.onnx"
    export(1, path, form)

    def work():
        moves_until(monkeypatch, number, signal.SIGSTOP)
        export(2, path, form)

    first = forked(work)
    assert os.WIFSTOPPED(os.waitpid(first, os.WUNTRACED)[1])
    second = forked(lambda: export(1, path, form))
    time.sleep(0.5)
    assert os.waitpid(second, os.WNOHANG) == (0, 0)
    os.kill(first, signal.SIGCONT)
    for child in (first, second):
        assert os.waitpid(child, 0)[1] == 0
    check_and_export_again(path, form, answers, (1,))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a small file system")
def test_a_small_file_system(tmp_path, answers):
    small = tmp_path / "small"
    small.mkdir()
    export(1, tmp_path / "m.onnx", "one file")
    room = 1.6 * (tmp_path / "m.onnx").stat().st_size + 4096
    command = ["mount", "-t", "tmpfs", "-o", f"size={room:.0f}", "tmpfs", str(small)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted")
    try:
        export(1, small / "m.onnx", "one file")
        with pytest.raises(WriteError, match="full"):
            export(2, small / "m.onnx", "one file")
        assert seed_of(small / "m.onnx", "one file", answers) == 1
        assert names(small) == ["m.onnx"]
    finally:
        subprocess.run(["umount", str(small)], check=True)
