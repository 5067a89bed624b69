"""What is run together, and that nobody gets another's answer or error."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from probegen import runtime
from probegen.errors import ArtefactError
from probegen.serve.batching import Batcher, Limits, QueueFullError, StoppingError
from probegen.serve.inference import Served, prepare
from probegen.serve.protocol import Request
from tests.runtime.support import images, save_zoo
from tests.serve.conftest import noise


class Slow:
    """An artefact whose runs wait until they are let go, and are written down."""

    def __init__(self, artefact, fails=None):
        self._artefact, self._fails = artefact, fails or (lambda _: False)
        self.inputs, self.outputs, self.manifest = (
            artefact.inputs,
            artefact.outputs,
            artefact.manifest,
        )
        self.path = artefact.path
        self.go, self.runs = threading.Event(), []

    def compute(self, feeds, outputs):
        assert self.go.wait(10)
        rows = len(next(iter(feeds.inputs.values())))
        self.runs.append((rows, feeds.explain))
        if self._fails(feeds):
            raise ArtefactError("this run fails")
        return self._artefact.compute(feeds, outputs)


def job(served, x, explain=False, target=None, **more):
    parameters = {"explain": explain, **({} if target is None else {"target": target}), **more}
    name = served.artefact.inputs[0].name
    return prepare(served, Request({name: x}, parameters))


def served_slowly(served, **options):
    slow = Slow(served.artefact, **options)
    return SimpleNamespace(artefact=slow, name=served.name, version="1"), slow


async def settled():
    """Lets everybody run who can: by turns of the event loop, however long they take."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(served, slow, limits, jobs, on_batch=None):
    """Submits jobs at once, lets go when all wait, and returns what became of each."""

    async def whole():
        batcher = Batcher(served, limits, on_batch)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(job)) for job in jobs]
        await settled()
        slow.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.stop()
        return results

    return asyncio.run(whole())


def test_requests_that_wait_are_run_together(zoo):
    served, slow = served_slowly(zoo)
    xs = [images(1 + i % 3, seed=i) for i in range(9)]
    jobs = [job(zoo, x, explain=i % 2 == 0, target=i % 4) for i, x in enumerate(xs)]
    seen = []
    results = run(served, slow, Limits(max_batch=8), jobs, lambda *told: seen.append(told))
    assert sum(rows for rows, _ in slow.runs) == sum(map(len, xs))
    assert 2 < len(slow.runs) < len(xs)
    assert all(rows <= 8 for rows, _ in slow.runs)
    assert [sum(j.rows for j in jobs) for jobs, _ in seen] == [rows for rows, _ in slow.runs]
    for i, (x, done) in enumerate(zip(xs, results, strict=True)):
        expected = zoo.artefact.run(x, target=i % 4, explain=i % 2 == 0)
        assert set(done.arrays) == set(expected)
        assert done.waited >= 0
        for name, array in done.arrays.items():
            np.testing.assert_allclose(array, expected[name].array, rtol=1e-5, atol=1e-6)


def test_other_shapes_go_into_other_batches(positions):
    served, slow = served_slowly(positions)
    jobs = [job(positions, noise(1, 5 + i % 2, 3, seed=i)) for i in range(8)]
    results = run(served, slow, Limits(), jobs)
    assert slow.runs == [(4, False)] * 2
    for one, done in zip(jobs, results, strict=True):
        alone = positions.artefact.compute(one.feeds, one.outputs)
        np.testing.assert_allclose(done.arrays["steps"], alone["steps"], rtol=1e-5, atol=1e-6)


def test_a_run_that_fails_fails_only_whoever_made_it_fail(zoo):
    served, slow = served_slowly(zoo, fails=lambda feeds: (feeds.inputs["image"] > 99).any())
    xs = [images(1, seed=i) for i in range(6)]
    xs[3] = xs[3] + 100
    results = run(served, slow, Limits(), [job(zoo, x) for x in xs])
    for i, (x, done) in enumerate(zip(xs, results, strict=True)):
        if i == 3:
            assert isinstance(done, ArtefactError)
        else:
            expected = zoo.artefact.run(x, explain=False)["animal"].array
            np.testing.assert_allclose(done.arrays["animal"], expected, rtol=1e-5)


def test_a_request_larger_than_a_batch_runs_alone(zoo):
    served, slow = served_slowly(zoo)
    jobs = [job(zoo, images(rows)) for rows in (1, 7, 2, 1)]
    results = run(served, slow, Limits(max_batch=4), jobs)
    assert sorted(rows for rows, _ in slow.runs) == [1, 3, 7]
    assert [len(done.arrays["animal"]) for done in results] == [1, 7, 2, 1]


def test_a_delay_lets_others_join(zoo):
    served, slow = served_slowly(zoo)
    slow.go.set()
    jobs = [job(zoo, images(1, seed=i)) for i in range(4)]
    run(served, slow, Limits(max_delay=0.2), jobs)
    assert slow.runs == [(4, False)]
    slow.runs.clear()
    run(served, slow, Limits(max_delay=60, max_batch=4), jobs)  # full at once: nobody waits
    assert slow.runs == [(4, False)]


def test_a_full_queue(zoo):
    served, slow = served_slowly(zoo)
    jobs = [job(zoo, images(1)) for _ in range(7)]
    results = run(served, slow, Limits(queue_size=4), jobs)
    # All come before the first has left the queue.
    assert sum(isinstance(r, QueueFullError) for r in results) == 3
    assert all(hasattr(r, "arrays") for r in results[:4])


def test_stopping_answers_what_waits_and_takes_no_more(zoo):
    served, slow = served_slowly(zoo)

    async def whole():
        batcher = Batcher(served, Limits(max_delay=60, runs=2))
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(job(zoo, images(1)))) for _ in range(3)]
        await settled()
        stopping = asyncio.create_task(batcher.stop())
        await settled()
        with pytest.raises(StoppingError):
            await batcher.submit(job(zoo, images(1)))
        slow.go.set()
        await stopping
        return await asyncio.gather(*tasks)

    assert len(asyncio.run(asyncio.wait_for(whole(), 20))) == 3


def test_a_client_that_goes_is_not_run(zoo):
    served, slow = served_slowly(zoo)

    async def whole():
        batcher = Batcher(served, Limits())
        batcher.start()
        first = asyncio.create_task(batcher.submit(job(zoo, images(1))))
        await settled()
        second = asyncio.create_task(batcher.submit(job(zoo, images(2))))
        await settled()
        second.cancel()
        await settled()
        assert batcher.waiting == 0
        slow.go.set()
        await first
        await batcher.stop()

    asyncio.run(whole())
    assert slow.runs == [(1, False)]


def test_a_fixed_batch_is_never_merged(tmp_path):
    path = save_zoo(tmp_path / "fixed.onnx", dynamic_batch=False)
    fixed = Served(runtime.load(path, threads=1), "fixed")
    served, slow = served_slowly(fixed)
    results = run(served, slow, Limits(), [job(fixed, images(1, seed=i)) for i in range(4)])
    assert [rows for rows, _ in slow.runs] == [1] * 4
    for i, done in enumerate(results):
        expected = fixed.artefact.run(images(1, seed=i), explain=False)["animal"].array
        np.testing.assert_array_equal(done.arrays["animal"], expected)
