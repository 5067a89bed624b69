// Checks what is fed against the manifest, as probegen.runtime.inputs does, and makes tensors of it.
(function (page) {
  "use strict";

  const { fail } = page;
  const { count, span } = page.arrays;
  const BATCH = "batch";
  const ARRAYS = {
    float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
    uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
    bool: Uint8Array, float16: Uint16Array,
  };
  const LIMITS = {
    int8: [-128, 127], uint8: [0, 255], int16: [-32768, 32767], uint16: [0, 65535],
    int32: [-(2 ** 31), 2 ** 31 - 1], uint32: [0, 2 ** 32 - 1],
    int64: [-(2 ** 53), 2 ** 53], uint64: [0, 2 ** 53],
  };
  const MOST = { float16: 65504, float32: 3.4028234663852886e38 };
  // Values that reach so many times beyond those of the verification are called far from them.
  const FAR = 10;
  const MADE_UP = [-4, 4];

  const isFloat = (spec) => spec.dtype.startsWith("float");

  // Returns axes with their sizes, for example "[batch, height=28, width=28]".
  const described = (spec) => `[${spec.axes.map((axis, i) => (spec.shape[i] === null ? axis : `${axis}=${spec.shape[i]}`)).join(", ")}]`;

  // Returns what a user gives: texts in the place of the inputs that are made of them. A recurrent state
  // is none of it: it starts from zeros.
  function asGiven(manifest) {
    const made = new Set(manifest.texts.flatMap((text) => Object.values(text.makes)));
    const own = manifest.inputs.filter((spec) => !made.has(spec.name) && spec.next_state === null);
    return { texts: manifest.texts, inputs: own };
  }

  function check(spec, value) {
    const { data, shape } = value;
    const sizes = `Its shape is [${shape.join(", ")}], expected ${described(spec)}.`;
    if (shape.length !== spec.shape.length) fail(`"${spec.name}" has ${shape.length} axes, expected ${spec.shape.length}. ${sizes}`);
    spec.axes.forEach((axis, i) => {
      const size = spec.shape[i];
      const wrong = axis !== BATCH && (size === null ? shape[i] === 0 && spec.next_state === null : shape[i] !== size);
      if (wrong) fail(`"${spec.name}" has the size ${shape[i]} on the axis ${axis}, expected ${size ?? "at least 1"}. ${sizes}`);
      if (axis !== BATCH && size === null && spec.longest !== null && shape[i] > spec.longest) {
        fail(`"${spec.name}" has ${shape[i]} entries on the axis ${axis}, and the model has positions for ${spec.longest} at most: cut it.`);
      }
      const least = spec.shortest?.[i] ?? null;
      if (axis !== BATCH && size === null && least !== null && shape[i] < least) {
        fail(`"${spec.name}" has ${shape[i]} entries on the axis ${axis}, and the model needs ${least} at least: fill it up.`);
      }
    });
    const whole = spec.integer || !(isFloat(spec) || spec.dtype === "bool");
    const [low, high] = LIMITS[spec.dtype] ?? [-Infinity, Infinity];
    const isBytes = data instanceof Uint8Array || data instanceof Uint8ClampedArray;
    if (isBytes && spec.vocabulary === null && low <= 0 && high >= 255) return;
    for (let i = 0; i < data.length; i += 1) {
      const number = Number(data[i]);
      if (whole && !Number.isInteger(number)) fail(`"${spec.name}" takes whole numbers, and ${number} is none.`);
      if (spec.vocabulary !== null && !(number >= 0 && number < spec.vocabulary)) {
        fail(`"${spec.name}": the value ${number} is out of the vocabulary: ids go from 0 to ${spec.vocabulary - 1}.`);
      }
      if (number < low || number > high) fail(`"${spec.name}": ${number} does not fit into ${spec.dtype}.`);
      if (isFloat(spec) && Number.isFinite(number) && Math.abs(number) > (MOST[spec.dtype] ?? Infinity)) {
        fail(`"${spec.name}": ${number} does not fit into ${spec.dtype}.`);
      }
      if (spec.dtype === "bool" && number !== 0 && number !== 1) fail(`"${spec.name}" takes 0 and 1, got ${number}.`);
    }
  }

  // Returns a number as the sixteen bits of a half, rounded to even.
  function toHalf(value) {
    const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
    const sign = (bits >>> 16) & 0x8000;
    const size = Math.abs(value);
    if (Number.isNaN(value)) return sign | 0x7e00;
    if (size >= 65520) return sign | 0x7c00;
    const exponent = Math.max(-14, Math.floor(Math.log2(size || 1e-30)));
    const scaled = Math.fround(size) / 2 ** (exponent - 10);
    const floor = Math.floor(scaled);
    const rest = scaled - floor;
    const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
    return sign | (exponent === -14 ? rounded : ((exponent + 14) << 10) + rounded);
  }

  function fromHalf(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const part = bits & 1023;
    if (exponent === 31) return part ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : (2 ** -14 * part) / 1024);
  }

  // Returns one sample as a tensor's { dtype, data, dims }, as often as the artefact's batch has rows.
  function tensorOf(spec, value) {
    const at = spec.axes.indexOf(BATCH);
    const rows = at < 0 ? 1 : (spec.shape[at] ?? 1);
    const Kind = ARRAYS[spec.dtype];
    const convert = spec.dtype.endsWith("int64") ? (one) => BigInt(one) : spec.dtype === "float16" ? toHalf : Number;
    const isPlain = convert === Number && ArrayBuffer.isView(value.data);
    const one = isPlain ? new Kind(value.data) : Kind.from(value.data, convert);
    const dims = value.shape.slice();
    if (rows === 1) return { dtype: spec.dtype, data: one, dims };
    const inner = count(dims.slice(at + 1));
    const outer = count(dims.slice(0, at));
    const data = new Kind(one.length * rows);
    for (let i = 0; i < outer * rows; i += 1) {
      const from = Math.floor(i / rows) * inner;
      data.set(one.subarray(from, from + inner), i * inner);
    }
    dims[at] = rows;
    return { dtype: spec.dtype, data, dims };
  }

  const filled = (spec, sizes, number) => ({ data: new Array(count(sizes)).fill(number), shape: sizes });
  const sizesOfOne = (spec, open) => spec.axes.map((axis, i) => (axis === BATCH ? 1 : (spec.shape[i] ?? open(axis))));

  // Returns the sizes that open axes have in what is given, by the name of the axis.
  function knownSizes(spec, given, manifest) {
    for (const input of manifest.inputs) {
      if (given.has(input.name) && spec.axes.every((axis) => input.axes.includes(axis))) {
        const { shape } = given.get(input.name);
        return Object.fromEntries(input.axes.map((axis, i) => [axis, shape[i]]));
      }
    }
    return {};
  }

  // Returns groups of the cells of a grid over the positions; all positions by themselves where they fit.
  function gridGroups(spec, sizes) {
    const most = spec.vocabulary ?? Infinity;
    const inner = sizes.slice(1);
    let cells = inner.slice();
    while (count(cells) > most) {
      const widest = cells.indexOf(Math.max(...cells));
      cells[widest] = Math.ceil(cells[widest] / 2);
      if (count(cells) > most && cells.every((n) => n === 1)) break;
    }
    const data = Array.from({ length: count(inner) }, (_, flat) => {
      let rest = flat;
      let cell = 0;
      let factor = 1;
      for (let axis = inner.length - 1; axis >= 0; axis -= 1) {
        const place = rest % inner[axis];
        rest = Math.floor(rest / inner[axis]);
        cell += Math.floor((place * cells[axis]) / inner[axis]) * factor;
        factor *= cells[axis];
      }
      return cell;
    });
    return { data, shape: sizes };
  }

  // Returns all tensors by name: what the widgets give, and what an artefact takes beside it.
  // `given` maps names of inputs to { data, shape } of one sample with its batch axis.
  function feeds(manifest, given, { target, explain }) {
    const made = {};
    for (const spec of manifest.inputs) {
      if (!given.has(spec.name) && spec.next_state !== null) {
        given.set(spec.name, filled(spec, sizesOfOne(spec, () => 0), 0));
      }
      if (!given.has(spec.name)) fail(`The input "${spec.name}" is missing.`);
      check(spec, given.get(spec.name));
      made[spec.name] = tensorOf(spec, given.get(spec.name));
    }
    const rows = batchOf(manifest);
    if (manifest.target_input) made.target = { dtype: "int32", data: new Int32Array(rows).fill(target), dims: [rows] };
    const region = manifest.region_input;
    if (region !== null) {
      made[region.name] = tensorOf(region, filled(region, sizesOfOne(region, () => 1), 1));
    }
    const groups = manifest.groups_input;
    if (groups !== null) {
      const known = knownSizes(groups, given, manifest);
      const sizes = sizesOfOne(groups, (axis) => known[axis] ?? 1);
      made[groups.name] = tensorOf(groups, gridGroups(groups, sizes));
    }
    if (manifest.gate === "required") made.explain = { dtype: "bool", data: Uint8Array.of(explain ? 1 : 0), dims: [] };
    return made;
  }

  // Returns how many rows the artefact takes.
  function batchOf(manifest) {
    for (const spec of manifest.inputs) {
      const at = spec.axes.indexOf(BATCH);
      if (at >= 0 && spec.shape[at] !== null) return spec.shape[at];
    }
    return 1;
  }

  // Returns what should be said of values that are far from those that the artefact was verified on.
  function doubts(manifest, spec, value, isPicture) {
    if (!isFloat(spec) || spec.integer || spec.preprocessing !== null) return [];
    const fed = span(value.data);
    if (fed === null) return [];
    const certificate = manifest.certificate ?? {};
    const known = certificate.range?.[spec.name] ?? null;
    const madeUp = known === null && Boolean(certificate.generated) && isPicture;
    if (known === null && !madeUp) return [];
    const most = (range) => Math.max(...range.map(Math.abs));
    const range = known ?? MADE_UP;
    const [size, reached] = [most(range), most(fed)];
    const far = size > 0 && reached > 0 && (reached > FAR * size || (range[1] > range[0] && reached * FAR < size));
    if (!far || (madeUp && reached <= MADE_UP[1])) return [];
    const shown = (pair) => pair.map((one) => Number(one.toPrecision(4))).join(" to ");
    const where = known === null ? "made-up values around 0" : shown(known);
    return [`"${spec.name}" is fed values of ${shown(fed)}; the artefact was verified on ${where}.`];
  }

  page.inputs = { asGiven, described, doubts, feeds, fromHalf, isFloat, toHalf };
})((globalThis.probegen = globalThis.probegen || {}));
