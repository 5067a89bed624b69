"""Parts of axes against positions that are counted one by one."""

import itertools

import numpy as np
import pytest

from probegen.graph.attribution.spans import Span, hull, read_by, sliding_over, span_of, whole


def positions(span):
    return [set(range(a, a + span.size)) for a in span.starts]


def drawn(length, seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, length))
    return Span(rng.integers(0, length - size + 1, 5), size)


def test_a_part_is_as_long_at_all_places_and_stays_on_its_axis():
    span = span_of(np.array([0, 3, 6, 9]), np.array([3, 6, 9, 10]), 10)
    assert span.size == 3
    assert span.starts.tolist() == [0, 3, 6, 7]
    assert span.stops.tolist() == [3, 6, 9, 10]
    nothing = span_of(np.array([5, 9]), np.array([5, 8]), 9)  # one position at least
    assert (nothing.size, nothing.starts.tolist()) == (1, [5, 8])


def test_moved_covering_and_equal_parts():
    span = Span(np.array([1, 4]), 3)
    assert span.moved(2) == Span(np.array([3, 6]), 3)
    assert span != Span(np.array([1, 4]), 2)
    assert whole(9, span).covers(span)
    assert not span.covers(Span(np.array([1, 3]), 2))
    assert span != "a part"


@pytest.mark.parametrize("seed", range(6))
def test_a_hull_covers_all(seed):
    parts = [drawn(12, 2 * seed), drawn(12, 2 * seed + 1)]
    found = hull(parts, 12)
    assert all(found.covers(part) for part in parts)
    assert found.starts.min() >= 0
    assert found.stops.max() <= 12


CASES = itertools.product((7, 12), (1, 2, 3, 5), (1, 2, 3), (1, 2), (0, 2))


@pytest.mark.parametrize(("length", "kernel", "stride", "dilation", "pad"), CASES)
def test_windows_that_read_a_part_and_what_they_read(length, kernel, stride, dilation, pad):
    extent = dilation * (kernel - 1) + 1
    count = (length + 2 * pad - extent) // stride + 1
    if count < 1:
        pytest.skip("no window fits")
    reads = [{o * stride + dilation * t for t in range(kernel)} for o in range(count)]
    for seed in range(5):
        part = drawn(length, seed).moved(pad)
        found = sliding_over(part, extent, stride, count)
        assert found.starts.min() >= 0
        assert found.stops.max() <= count
        for changed, windows, read in zip(
            positions(part),
            positions(found),
            positions(read_by(found, extent, stride)),
            strict=True,
        ):
            assert {o for o in range(count) if reads[o] & changed} <= windows
            assert set().union(*(reads[o] for o in windows)) <= read
            assert max(read) < length + 2 * pad
