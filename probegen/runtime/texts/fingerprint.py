"""FarmHash Fingerprint64, by which TensorFlow sorts strings into buckets.

`tf.strings.to_hash_bucket_fast(word, n)` is this number modulo n. After the reference
implementation `farmhashna::Hash64` (Pike, Google, 2014), whose results are fixed for all time.
"""

from __future__ import annotations

_ALL = 2**64 - 1
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F


def fingerprint(data: bytes) -> int:
    """Returns the fingerprint of bytes, from 0 to 2^64 - 1."""
    size = len(data)
    if size <= 16:
        return _up_to_16(data)
    if size <= 32:
        return _up_to_32(data)
    if size <= 64:
        return _up_to_64(data)
    return _longer(data)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _half(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _turned(value: int, by: int) -> int:
    return ((value >> by) | (value << (64 - by))) & _ALL


def _mixed(value: int) -> int:
    return value ^ (value >> 47)


def _joined(low: int, high: int, factor: int) -> int:
    a = ((low ^ high) * factor) & _ALL
    a ^= a >> 47
    b = ((high ^ a) * factor) & _ALL
    b ^= b >> 47
    return (b * factor) & _ALL


def _up_to_16(data: bytes) -> int:
    size = len(data)
    if size >= 8:
        factor = (_K2 + size * 2) & _ALL
        a = (_word(data, 0) + _K2) & _ALL
        b = _word(data, size - 8)
        c = (_turned(b, 37) * factor + a) & _ALL
        d = ((_turned(a, 25) + b) * factor) & _ALL
        return _joined(c, d, factor)
    if size >= 4:
        factor = (_K2 + size * 2) & _ALL
        return _joined((size + (_half(data, 0) << 3)) & _ALL, _half(data, size - 4), factor)
    if size > 0:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[size - 1] << 2)
        return (_mixed((y * _K2 ^ z * _K0) & _ALL) * _K2) & _ALL
    return _K2


def _up_to_32(data: bytes) -> int:
    size = len(data)
    factor = (_K2 + size * 2) & _ALL
    a = (_word(data, 0) * _K1) & _ALL
    b = _word(data, 8)
    c = (_word(data, size - 8) * factor) & _ALL
    d = (_word(data, size - 16) * _K2) & _ALL
    return _joined(
        (_turned((a + b) & _ALL, 43) + _turned(c, 30) + d) & _ALL,
        (a + _turned((b + _K2) & _ALL, 18) + c) & _ALL,
        factor,
    )


def _up_to_64(data: bytes) -> int:
    size = len(data)
    factor = (_K2 + size * 2) & _ALL
    a = (_word(data, 0) * _K2) & _ALL
    b = _word(data, 8)
    c = (_word(data, size - 8) * factor) & _ALL
    d = (_word(data, size - 16) * _K2) & _ALL
    y = (_turned((a + b) & _ALL, 43) + _turned(c, 30) + d) & _ALL
    z = _joined(y, (a + _turned((b + _K2) & _ALL, 18) + c) & _ALL, factor)
    e = (_word(data, 16) * factor) & _ALL
    f = _word(data, 24)
    g = ((y + _word(data, size - 32)) * factor) & _ALL
    h = ((z + _word(data, size - 24)) * factor) & _ALL
    return _joined(
        (_turned((e + f) & _ALL, 43) + _turned(g, 30) + h) & _ALL,
        (e + _turned((f + a) & _ALL, 18) + g) & _ALL,
        factor,
    )


def _seeded(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    """Returns two sums of 32 bytes and two seeds."""
    w, x, y, z = (_word(data, at + 8 * i) for i in range(4))
    a = (a + w) & _ALL
    b = _turned((b + a + z) & _ALL, 21)
    c = a
    a = (a + x + y) & _ALL
    b = (b + _turned(a, 44)) & _ALL
    return (a + z) & _ALL, (b + c) & _ALL


def _longer(data: bytes) -> int:
    seed = 81
    x = seed
    y = (seed * _K1 + 113) & _ALL
    z = (_mixed((y * _K2 + 113) & _ALL) * _K2) & _ALL
    v, w = (0, 0), (0, 0)
    x = (x * _K2 + _word(data, 0)) & _ALL
    last = ((len(data) - 1) // 64) * 64
    for at in range(0, last, 64):
        x = (_turned((x + y + v[0] + _word(data, at + 8)) & _ALL, 37) * _K1) & _ALL
        y = (_turned((y + v[1] + _word(data, at + 48)) & _ALL, 42) * _K1) & _ALL
        x ^= w[1]
        y = (y + v[0] + _word(data, at + 40)) & _ALL
        z = (_turned((z + w[0]) & _ALL, 33) * _K1) & _ALL
        v = _seeded(data, at, (v[1] * _K1) & _ALL, (x + w[0]) & _ALL)
        w = _seeded(data, at + 32, (z + w[1]) & _ALL, (y + _word(data, at + 16)) & _ALL)
        z, x = x, z
    factor = (_K1 + ((z & 0xFF) << 1)) & _ALL
    at = len(data) - 64
    w = ((w[0] + ((len(data) - 1) & 63)) & _ALL, w[1])
    v = ((v[0] + w[0]) & _ALL, v[1])
    w = ((w[0] + v[0]) & _ALL, w[1])
    x = (_turned((x + y + v[0] + _word(data, at + 8)) & _ALL, 37) * factor) & _ALL
    y = (_turned((y + v[1] + _word(data, at + 48)) & _ALL, 42) * factor) & _ALL
    x ^= (w[1] * 9) & _ALL
    y = (y + v[0] * 9 + _word(data, at + 40)) & _ALL
    z = (_turned((z + w[0]) & _ALL, 33) * factor) & _ALL
    v = _seeded(data, at, (v[1] * factor) & _ALL, (x + w[0]) & _ALL)
    w = _seeded(data, at + 32, (z + w[1]) & _ALL, (y + _word(data, at + 16)) & _ALL)
    z, x = x, z
    return _joined(
        (_joined(v[0], w[0], factor) + _mixed(y) * _K0 + z) & _ALL,
        (_joined(v[1], w[1], factor) + x) & _ALL,
        factor,
    )
