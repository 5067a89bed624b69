// Arrays with named axes: what the page needs of numpy. An array is { data, shape }, row by row.
(function (page) {
  "use strict";

  const CHANNEL = ["channel", "feature", "unit", "embedding", "class", "filter"];
  const SEQUENCE = ["time", "step", "sequence", "position", "token", "frame"];
  const SPACE = ["depth", "height", "width"];

  const count = (shape) => shape.reduce((product, size) => product * size, 1);

  function axisOf(axes, names) {
    const wanted = Array.isArray(names) ? names : [names];
    return axes.findIndex((axis) => wanted.includes(axis));
  }

  function strides(shape) {
    const found = new Array(shape.length).fill(1);
    for (let i = shape.length - 2; i >= 0; i -= 1) found[i] = found[i + 1] * shape[i + 1];
    return found;
  }

  // Returns an array with its axes in another order: `order[i]` is the axis that becomes the i-th.
  function transpose(array, order) {
    if (order.every((axis, i) => axis === i)) return array;
    const steps = strides(array.shape);
    const shape = order.map((axis) => array.shape[axis]);
    const along = order.map((axis) => steps[axis]);
    const data = new array.data.constructor(count(shape));
    const at = new Array(shape.length).fill(0);
    let from = 0;
    for (let to = 0; to < data.length; to += 1) {
      data[to] = array.data[from];
      for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
        at[axis] += 1;
        from += along[axis];
        if (at[axis] < shape[axis]) break;
        from -= along[axis] * shape[axis];
        at[axis] = 0;
      }
    }
    return { data, shape };
  }

  // Returns the array with its axes in the order of `names`, which are all of its axes.
  const ordered = (array, axes, names) => transpose(array, names.map((name) => axes.indexOf(name)));

  // Returns what stands at one place along an axis, which goes.
  function taken(array, axis, place) {
    const inner = count(array.shape.slice(axis + 1));
    const outer = count(array.shape.slice(0, axis));
    const data = new array.data.constructor(outer * inner);
    for (let i = 0; i < outer; i += 1) {
      const start = (i * array.shape[axis] + place) * inner;
      data.set(array.data.subarray(start, start + inner), i * inner);
    }
    return { data, shape: array.shape.filter((_, i) => i !== axis) };
  }

  // Returns numbers as floats of 64 bits; quick where they are numbers already, as whole ones of 64 are not.
  function floats(data) {
    const isBig = data instanceof BigInt64Array || data instanceof BigUint64Array;
    return ArrayBuffer.isView(data) && !isBig ? new Float64Array(data) : Float64Array.from(data, Number);
  }

  // Returns arrays one behind the other.
  function concatenated(arrays) {
    const made = new Float64Array(arrays.reduce((size, one) => size + one.length, 0));
    let at = 0;
    for (const one of arrays) {
      made.set(one, at);
      at += one.length;
    }
    return made;
  }

  // Returns the least and the greatest finite number; null where there is none.
  function span(data) {
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < data.length; i += 1) {
      const one = Number(data[i]);
      if (!Number.isFinite(one)) continue;
      if (one < low) low = one;
      if (one > high) high = one;
    }
    return low <= high ? [low, high] : null;
  }

  // Returns the largest size of a finite number; 0 where there is none.
  function reach(data) {
    const [low, high] = span(data) ?? [0, 0];
    return Math.max(-low, high);
  }

  // Returns `[..., n]` with its last axis joined into one number each.
  function joined(array, join) {
    const size = array.shape[array.shape.length - 1];
    const shape = array.shape.slice(0, -1);
    const data = new Float64Array(count(shape));
    for (let i = 0; i < data.length; i += 1) data[i] = join(array.data.subarray(i * size, (i + 1) * size));
    return { data, shape };
  }

  // Returns where the greatest number stands first; where there is NaN, that, as in numpy.
  function argmax(row) {
    const missing = row.findIndex(Number.isNaN);
    return missing >= 0 ? missing : row.reduce((best, value, at) => (value > row[best] ? at : best), 0);
  }

  const sum = (row) => row.reduce((total, value) => total + value, 0);
  const mean = (row) => sum(row) / row.length;
  const largest = (row) => row.reduce((best, value) => (value > best || Number.isNaN(value) ? value : best), -Infinity);
  const norm = (row) => Math.sqrt(row.reduce((total, value) => total + value * value, 0));

  // Resamples one axis linearly with half-pixel centres, as probegen.runtime.resize does.
  function resizedAlong(array, axis, length) {
    const old = array.shape[axis];
    if (old === length) return array;
    const inner = count(array.shape.slice(axis + 1));
    const outer = count(array.shape.slice(0, axis));
    const shape = array.shape.slice();
    shape[axis] = length;
    const data = new Float64Array(outer * length * inner);
    for (let to = 0; to < length; to += 1) {
      const position = Math.min(Math.max(((to + 0.5) * old) / length - 0.5, 0), old - 1);
      const below = Math.floor(position);
      const above = Math.min(below + 1, old - 1);
      const share = position - below;
      for (let i = 0; i < outer; i += 1) {
        for (let j = 0; j < inner; j += 1) {
          const low = array.data[(i * old + below) * inner + j];
          const high = array.data[(i * old + above) * inner + j];
          data[(i * length + to) * inner + j] = low * (1 - share) + high * share;
        }
      }
    }
    return { data, shape };
  }

  // Resamples the leading axes to `sizes`.
  const resized = (array, sizes) => sizes.reduce((made, size, axis) => resizedAlong(made, axis, size), array);

  // Which part of a picture a model sees behind its preprocessing: [first, length] of rows, columns.
  function seenPart(how, height, width) {
    const whole = [[0, height], [0, width]];
    if (!how || how.resize === null || how.fit === "stretch") return whole;
    const [rows, columns] = ["height", "width"].map((axis) => how.shape[how.axes.indexOf(axis)]);
    if (rows === null || columns === null) return whole;
    const cut = (product, by) => Math.trunc(Math.fround(Math.fround(product) / Math.fround(by)));
    let high = cut(width * rows, columns);
    let wide = cut(height * columns, rows);
    if (how.fit === "crop") {
      high = Math.max(1, Math.min(height, high));
      wide = Math.max(1, Math.min(width, wide));
      return [[Math.floor((height - high) / 2), high], [Math.floor((width - wide) / 2), wide]];
    }
    const top = Math.floor(Math.max(0, high - height) / 2);
    const left = Math.floor(Math.max(0, wide - width) / 2);
    return [[-top, height + 2 * top], [-left, width + 2 * left]];
  }

  // Brings a map `[height, width]` of what a model sees to the size of the picture that was given.
  function overPicture(map, [height, width], how) {
    const [[top, high], [left, wide]] = seenPart(how, height, width);
    const seen = resized(map, [high, wide]);
    if (top === 0 && left === 0 && high === height && wide === width) return seen;
    const data = new Float64Array(height * width);
    for (let y = Math.max(0, top); y < Math.min(height, top + high); y += 1) {
      for (let x = Math.max(0, left); x < Math.min(width, left + wide); x += 1) {
        data[y * width + x] = seen.data[(y - top) * wide + (x - left)];
      }
    }
    return { data, shape: [height, width] };
  }

  // The quantile of numbers, between neighbours as numpy's default does it.
  function quantile(values, share) {
    const sorted = Float64Array.from(values).sort();
    const at = share * (sorted.length - 1);
    const below = Math.floor(at);
    const low = sorted[below];
    const high = sorted[Math.min(below + 1, sorted.length - 1)];
    const part = at - below;
    return part >= 0.5 ? high - (high - low) * (1 - part) : low + (high - low) * part;
  }

  page.arrays = {
    CHANNEL, SEQUENCE, SPACE, argmax, axisOf, concatenated, count, floats, joined, largest, mean, norm, ordered, overPicture, quantile,
    reach, resized, span, sum, taken, transpose,
  };
})((globalThis.probegen = globalThis.probegen || {}));
