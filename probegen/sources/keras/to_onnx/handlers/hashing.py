"""Whole numbers sorted into buckets as `keras.layers.Hashing` does: by the hash of their digits.

TensorFlow writes a number as text (`AsString`) and hashes its bytes. ONNX takes no strings apart.
But the digits are known from the number, and there are at most 20 bytes of them and of the sign. So
the hash is arithmetic in unsigned 64-bit integers, which wrap around as in C: FarmHash's
Fingerprint64 (`probegen.runtime.texts.fingerprint` has it for texts of any length), and with a salt
SipHash-2-4 (Aumasson and Bernstein 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.writer import SIGNED, Writer

_Type = onnx.TensorProto
#: How many bytes the longest number has.
_MOST = 20
_MINUS, _ZERO = ord("-"), ord("0")
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
#: What SipHash starts from, and what it ends with.
_START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
_END = 0xFF


def as_text(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `AsString` of whole numbers; filled up to a width it stays, and is refused."""
    w = Writer(context, node)
    filled = w.attribute("width", -1) != -1 or w.attribute("fill", "")
    if w.dtype_of(w.inputs[0]) in SIGNED and not filled:
        w.finish("Cast", *w.inputs, to=_Type.STRING)


def by_farmhash(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `StringToHashBucketFast` of whole numbers; of texts it stays, and is refused."""
    text = _text(context, node)
    if text is None:
        return
    b, length = text.bits, text.length
    hashes = [_up_to_3(text), _up_to_7(text), _up_to_16(text), _longer(text)]
    found = b.signed(hashes[0])
    for least, other in zip((4, 8, 17), hashes[1:], strict=True):
        found = b.w.where(b.at_least(length, least), b.signed(other), found)
    b.give(found, int(b.w.attribute("num_buckets")))


def by_siphash(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `StringToHashBucketStrong` of whole numbers; of texts it stays, and is refused."""
    text = _text(context, node)
    if text is None:
        return
    b = text.bits
    keys = [int(k) % 2**64 for k in node.get_attr("key").ints]
    state = [b.number(start ^ keys[i % 2]) for i, start in enumerate(_START)]
    words = [text.from_start(8 * i, 8) for i in range(3)]
    for i, word in enumerate(words[:2]):  # whole words, of which a short text has none
        whole = b.at_least(text.length, 8 * (i + 1))
        after = _taken_in(b, state, word)
        state = [
            b.unsigned(b.w.where(whole, b.signed(new), b.signed(old)))
            for new, old in zip(after, state, strict=True)
        ]
    last = b.signed(words[0])
    for i, word in enumerate(words[1:]):
        last = b.w.where(b.at_least(text.length, 8 * (i + 1)), b.signed(word), last)
    size = b.shifted(b.unsigned(text.length), 56, "LEFT")
    state = _taken_in(b, state, b.add(b.unsigned(last), size))
    state[2] = b.xor(state[2], b.number(_END))
    for _round in range(4):
        state = _round_of_siphash(b, state)
    v0, v1, v2, v3 = state
    found = b.xor(b.xor(v0, v1), b.xor(v2, v3))
    b.give(b.signed(found), int(b.w.attribute("num_buckets")))


class _Bits:
    """Arithmetic in unsigned 64-bit integers, which wraps around.

    Attributes:
        w: writes the nodes.
    """

    def __init__(self, w: Writer) -> None:
        self.w = w

    def number(self, value: int) -> str:
        """Returns a constant."""
        return self.w.constant(np.array(value, np.uint64))

    def add(self, one: str, other: str) -> str:
        """Returns a sum."""
        return self.w.op("Add", one, other, dtype=_Type.UINT64)

    def mul(self, one: str, other: str) -> str:
        """Returns a product."""
        return self.w.op("Mul", one, other, dtype=_Type.UINT64)

    def xor(self, one: str, other: str) -> str:
        """Returns the bits that are in one of both."""
        return self.w.op("BitwiseXor", one, other, dtype=_Type.UINT64)

    def shifted(self, value: str, by: int, direction: str) -> str:
        """Returns a number whose bits are shifted, with zeros behind them."""
        steps = self.number(by)
        return self.w.op("BitShift", value, steps, dtype=_Type.UINT64, direction=direction)

    def turned(self, value: str, right: int) -> str:
        """Returns a number whose bits are shifted to the right, and come in again on the left."""
        left = self.shifted(value, 64 - right, "LEFT")
        return self.add(self.shifted(value, right, "RIGHT"), left)

    def mixed(self, value: str) -> str:
        """Returns `value ^ (value >> 47)`."""
        return self.xor(value, self.shifted(value, 47, "RIGHT"))

    def signed(self, value: str) -> str:
        """Returns the same bits as int64, as `Where` takes them."""
        return self.w.cast(value, _Type.INT64)

    def unsigned(self, value: str) -> str:
        """Returns the same bits as uint64."""
        return self.w.cast(value, _Type.UINT64)

    def at_least(self, value: str, least: int) -> str:
        """Tells whether an int64 is a number or larger."""
        return self.w.test("Less", self.w.const(least - 1, _Type.INT64), value)

    def give(self, found: str, buckets: int) -> None:
        """Puts the rest of hashes by the number of buckets in the place of the node."""
        rest = self.w.op("Mod", self.unsigned(found), self.number(buckets), dtype=_Type.UINT64)
        self.w.give(self.signed(rest))


class _Text:
    """The bytes of numbers as text, int64 `[..., 20]` from either end; zeros beyond the text.

    Attributes:
        bits: writes the nodes.
        length: how many bytes each has, int64 `[...]`.
    """

    def __init__(self, w: Writer, numbers: str) -> None:
        self.bits = b = _Bits(w)
        value = w.cast(numbers, _Type.INT64)
        negative = w.test("Less", value, w.const(0, _Type.INT64))
        turned = w.op("Sub", b.number(0), b.unsigned(value), dtype=_Type.UINT64)
        size = b.unsigned(w.where(negative, b.signed(turned), value))
        tens = w.constant(np.array([10**k for k in range(_MOST)], np.uint64))
        above = w.op("Div", w.unsqueeze(size, [-1]), tens, dtype=_Type.UINT64)
        digit = w.cast(w.op("Mod", above, b.number(10), dtype=_Type.UINT64), _Type.INT64)
        there = w.cast(w.cast(above, _Type.BOOL), _Type.INT64)
        count = w.op("Max", w.sum(there, [-1]), w.const(1, _Type.INT64), dtype=_Type.INT64)
        self.length = w.op("Add", count, w.cast(negative, _Type.INT64), dtype=_Type.INT64)
        places = w.constant(np.arange(_MOST, dtype=np.int64))
        within = w.test("Less", places, w.unsqueeze(self.length, [-1]))
        of_digit = w.op("Add", digit, w.const(_ZERO, _Type.INT64), dtype=_Type.INT64)
        minus = w.where(within, w.const(_MINUS, _Type.INT64), w.const(0, _Type.INT64))
        is_digit = w.test("Less", places, w.unsqueeze(count, [-1]))
        self._backwards = w.where(is_digit, of_digit, minus)
        last = w.op("Sub", self.length, w.const(1, _Type.INT64), dtype=_Type.INT64)
        from_end = w.op("Sub", w.unsqueeze(last, [-1]), places, dtype=_Type.INT64)
        reach = w.op("Max", from_end, w.const(0, _Type.INT64), dtype=_Type.INT64)
        read = w.op("GatherElements", self._backwards, reach, dtype=_Type.INT64, axis=-1)
        self._forwards = w.where(within, read, w.const(0, _Type.INT64))

    def from_start(self, at: int, count: int) -> str:
        """Returns bytes behind the first `at` as an unsigned number, the first as its least."""
        return self._word(self._forwards, {at + i: i for i in range(count)})

    def from_end(self, at: int, count: int) -> str:
        """Returns the bytes that begin `at` bytes before the end, likewise."""
        return self._word(self._backwards, {at - 1 - i: i for i in range(count)})

    def _word(self, each: str, shifts: dict[int, int]) -> str:
        w = self.bits.w
        weights = [256 ** shifts[k] if k in shifts else 0 for k in range(_MOST)]
        # onnxruntime's ReduceSum of int64 is as exact as a float64, its product of matrices exact.
        wide = w.op("MatMul", each, w.constant(np.array(weights, np.int64)), dtype=_Type.INT64)
        return self.bits.unsigned(wide)


def _text(context: Any, node: Any) -> _Text | None:
    """Returns the text of the whole numbers that a node hashes; None where it hashes others."""
    w = Writer(context, node)
    made = context.get_node_by_output(w.inputs[0])
    if made is None or made.type != "Cast" or context.opset < 18:
        return None
    numbers = made.input[0]
    return _Text(w, numbers) if w.dtype_of(numbers) in SIGNED else None


# -- FarmHash ------------------------------------------------------------------------------------


def _up_to_3(text: _Text) -> str:
    b, w = text.bits, text.bits.w
    first, second = text.from_start(0, 1), text.from_start(1, 1)
    middle = w.where(b.at_least(text.length, 2), b.signed(second), b.signed(first))
    y = b.add(first, b.shifted(b.unsigned(middle), 8, "LEFT"))
    z = b.add(b.unsigned(text.length), b.shifted(text.from_end(1, 1), 2, "LEFT"))
    both = b.xor(b.mul(y, b.number(_K2)), b.mul(z, b.number(_K0)))
    return b.mul(b.mixed(both), b.number(_K2))


def _up_to_7(text: _Text) -> str:
    b = text.bits
    low = b.add(b.unsigned(text.length), b.shifted(text.from_start(0, 4), 3, "LEFT"))
    return _joined(b, low, text.from_end(4, 4), _factor(text))


def _up_to_16(text: _Text) -> str:
    b, factor = text.bits, _factor(text)
    first = b.add(text.from_start(0, 8), b.number(_K2))
    last = text.from_end(8, 8)
    c = b.add(b.mul(b.turned(last, 37), factor), first)
    d = b.mul(b.add(b.turned(first, 25), last), factor)
    return _joined(b, c, d, factor)


def _longer(text: _Text) -> str:
    b, factor = text.bits, _factor(text)
    first = b.mul(text.from_start(0, 8), b.number(_K1))
    second = text.from_start(8, 8)
    last = b.mul(text.from_end(8, 8), factor)
    before = b.mul(text.from_end(16, 8), b.number(_K2))
    ends = b.add(b.turned(last, 30), before)
    low = b.add(b.turned(b.add(first, second), 43), ends)
    turned = b.turned(b.add(second, b.number(_K2)), 18)
    return _joined(b, low, b.add(b.add(first, turned), last), factor)


def _factor(text: _Text) -> str:
    b = text.bits
    return b.add(b.shifted(b.unsigned(text.length), 1, "LEFT"), b.number(_K2))


def _joined(b: _Bits, low: str, high: str, factor: str) -> str:
    one = b.mixed(b.mul(b.xor(low, high), factor))
    other = b.mixed(b.mul(b.xor(high, one), factor))
    return b.mul(other, factor)


# -- SipHash -------------------------------------------------------------------------------------


def _taken_in(b: _Bits, state: Sequence[str], word: str) -> list[str]:
    """Returns the state behind a word."""
    v0, v1, v2, v3 = state
    found = [v0, v1, v2, b.xor(v3, word)]
    for _round in range(2):
        found = _round_of_siphash(b, found)
    return [b.xor(found[0], word), *found[1:]]


def _round_of_siphash(b: _Bits, state: Sequence[str]) -> list[str]:
    v0, v1, v2, v3 = state

    def left(value: str, by: int) -> str:
        return b.turned(value, 64 - by)

    v0, v2 = b.add(v0, v1), b.add(v2, v3)
    v1, v3 = b.xor(left(v1, 13), v0), b.xor(left(v3, 16), v2)
    v0, v2 = b.add(left(v0, 32), v3), b.add(v2, v1)
    v3, v1 = b.xor(left(v3, 21), v0), b.xor(left(v1, 17), v2)
    return [v0, v1, left(v2, 32), v3]
