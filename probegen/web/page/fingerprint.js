// FarmHash Fingerprint64 of bytes, as probegen.runtime.texts.fingerprint computes it. A text here is
// one of bytes: a character a byte.
(function (page) {
  "use strict";

  const K0 = 0xc3a5c85c97cb3127n;
  const K1 = 0xb492b66fbe98f273n;
  const K2 = 0x9ae16a3b2f90404fn;
  const all = (value) => BigInt.asUintN(64, value);
  const turned = (value, by) => all((value >> by) | (value << (64n - by)));
  const mixed = (value) => value ^ (value >> 47n);

  function bytesAt(text, at, size) {
    let value = 0n;
    for (let i = size - 1; i >= 0; i -= 1) value = (value << 8n) | BigInt(text.charCodeAt(at + i) || 0);
    return value;
  }

  const word = (text, at) => bytesAt(text, at, 8);
  const half = (text, at) => bytesAt(text, at, 4);

  function joined(low, high, factor) {
    const a = mixed(all((low ^ high) * factor));
    const b = mixed(all((high ^ a) * factor));
    return all(b * factor);
  }

  function upTo16(text) {
    const size = text.length;
    const factor = all(K2 + BigInt(size) * 2n);
    if (size >= 8) {
      const a = all(word(text, 0) + K2);
      const b = word(text, size - 8);
      const c = all(turned(b, 37n) * factor + a);
      const d = all((turned(a, 25n) + b) * factor);
      return joined(c, d, factor);
    }
    if (size >= 4) return joined(all(BigInt(size) + (half(text, 0) << 3n)), half(text, size - 4), factor);
    if (size > 0) {
      const y = BigInt(text.charCodeAt(0) + (text.charCodeAt(size >> 1) << 8));
      const z = BigInt(size + (text.charCodeAt(size - 1) << 2));
      return all(mixed(all((y * K2) ^ (z * K0))) * K2);
    }
    return K2;
  }

  function upTo32(text) {
    const size = text.length;
    const factor = all(K2 + BigInt(size) * 2n);
    const a = all(word(text, 0) * K1);
    const b = word(text, 8);
    const c = all(word(text, size - 8) * factor);
    const d = all(word(text, size - 16) * K2);
    return joined(
      all(turned(all(a + b), 43n) + turned(c, 30n) + d),
      all(a + turned(all(b + K2), 18n) + c),
      factor,
    );
  }

  function upTo64(text) {
    const size = text.length;
    const factor = all(K2 + BigInt(size) * 2n);
    const a = all(word(text, 0) * K2);
    const b = word(text, 8);
    const c = all(word(text, size - 8) * factor);
    const d = all(word(text, size - 16) * K2);
    const y = all(turned(all(a + b), 43n) + turned(c, 30n) + d);
    const z = joined(y, all(a + turned(all(b + K2), 18n) + c), factor);
    const e = all(word(text, 16) * factor);
    const f = word(text, 24);
    const g = all((y + word(text, size - 32)) * factor);
    const h = all((z + word(text, size - 24)) * factor);
    return joined(
      all(turned(all(e + f), 43n) + turned(g, 30n) + h),
      all(e + turned(all(f + a), 18n) + g),
      factor,
    );
  }

  function seeded(text, at, a, b) {
    const [w, x, y, z] = [0, 8, 16, 24].map((step) => word(text, at + step));
    a = all(a + w);
    b = turned(all(b + a + z), 21n);
    const c = a;
    a = all(a + x + y);
    b = all(b + turned(a, 44n));
    return [all(a + z), all(b + c)];
  }

  function longer(text) {
    let x = 81n;
    let y = all(81n * K1 + 113n);
    let z = all(mixed(all(y * K2 + 113n)) * K2);
    let v = [0n, 0n];
    let w = [0n, 0n];
    x = all(x * K2 + word(text, 0));
    const last = Math.floor((text.length - 1) / 64) * 64;
    for (let at = 0; at < last; at += 64) {
      x = all(turned(all(x + y + v[0] + word(text, at + 8)), 37n) * K1);
      y = all(turned(all(y + v[1] + word(text, at + 48)), 42n) * K1);
      x ^= w[1];
      y = all(y + v[0] + word(text, at + 40));
      z = all(turned(all(z + w[0]), 33n) * K1);
      v = seeded(text, at, all(v[1] * K1), all(x + w[0]));
      w = seeded(text, at + 32, all(z + w[1]), all(y + word(text, at + 16)));
      [z, x] = [x, z];
    }
    const factor = all(K1 + ((z & 0xffn) << 1n));
    const at = text.length - 64;
    w = [all(w[0] + BigInt((text.length - 1) & 63)), w[1]];
    v = [all(v[0] + w[0]), v[1]];
    w = [all(w[0] + v[0]), w[1]];
    x = all(turned(all(x + y + v[0] + word(text, at + 8)), 37n) * factor);
    y = all(turned(all(y + v[1] + word(text, at + 48)), 42n) * factor);
    x ^= all(w[1] * 9n);
    y = all(y + v[0] * 9n + word(text, at + 40));
    z = all(turned(all(z + w[0]), 33n) * factor);
    v = seeded(text, at, all(v[1] * factor), all(x + w[0]));
    w = seeded(text, at + 32, all(z + w[1]), all(y + word(text, at + 16)));
    [z, x] = [x, z];
    return joined(
      all(joined(v[0], w[0], factor) + mixed(y) * K0 + z),
      all(joined(v[1], w[1], factor) + x),
      factor,
    );
  }

  // Returns the fingerprint, from 0 to 2^64 - 1.
  page.fingerprint = function fingerprint(text) {
    if (text.length <= 16) return upTo16(text);
    if (text.length <= 32) return upTo32(text);
    return text.length <= 64 ? upTo64(text) : longer(text);
  };
})((globalThis.probegen = globalThis.probegen || {}));
