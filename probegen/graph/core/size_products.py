"""Products of open sizes: `3 * batch * time` is the size of an axis that joins all three.

A product is a size like any other: a string, one and the same for the same factors in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from probegen.graph.core.values import Dim

_TIMES = " * "


def factors_of(size: int | str) -> tuple[int, Counter[str]]:
    """Returns the number in a size, and how often it holds each name.

    Args:
        size: a number, a name, or a product.
    """
    if isinstance(size, int):
        return size, Counter()
    number, names = 1, Counter[str]()
    for part in size.split(_TIMES):
        if part.isdecimal():
            number *= int(part)
        else:
            names[part] += 1
    return number, names


def product_of(sizes: Iterable[Dim]) -> Dim:
    """Returns the product of sizes, 1 of none; None where one of them is not known."""
    number, names = 1, Counter[str]()
    for size in sizes:
        if size is None:
            return None
        own, more = factors_of(size)
        number *= own
        names += more
    return _written(number, names)


def quotient_of(whole: Dim, part: Dim) -> Dim:
    """Returns how many times one size holds another; None where it is not a whole number of times.

    Open sizes are taken to be 1 or more.
    """
    if whole is None or part is None:
        return None
    number, names = factors_of(whole)
    divisor, gone = factors_of(part)
    if divisor == 0 or number % divisor or not gone <= names:
        return None
    return _written(number // divisor, names - gone)


def told_by_equal(one: Dim, other: Dim) -> tuple[str, int] | None:
    """Returns which name is which number where two sizes are equal; None where that tells none.

    `8 * batch * time` and `48 * batch` -> `time` is 6. Open sizes are taken to be 1 or more.
    """
    if one is None or other is None:
        return None
    (number, names), (second, more) = factors_of(one), factors_of(other)
    left, right = names - more, more - names
    if left:
        number, second, left, right = second, number, right, left
    if left or right.total() != 1 or second < 1 or number < second or number % second:
        return None
    return next(iter(right)), number // second


def _written(number: int, names: Counter[str]) -> Dim:
    """Returns a product as a size; None of a negative number of names, which is no size."""
    if number == 0 or not names:
        return number
    if number < 0:
        return None
    parts = ([] if number == 1 else [str(number)]) + sorted(names.elements())
    return _TIMES.join(parts)
