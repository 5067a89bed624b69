// What a picture is drawn from: one sample of one output, and the words around it, as
// probegen.runtime.plot.view makes them.
(function (page) {
  "use strict";

  const { CHANNEL, SEQUENCE, SPACE, argmax, axisOf, taken, transpose } = page.arrays;
  const { number } = page.scales;
  const REDUCED = { mean: "mean activation", max: "largest activation", norm: "norm of activation" };
  const RANKS = { argmax: "the highest class", runner_up: "the second highest class" };

  // The first sample of an array and the axes that are left.
  function firstRow({ data, dims }, axes) {
    const array = { data, shape: dims };
    const at = axes.indexOf("batch");
    if (at < 0) return { array, axes: axes.slice() };
    return { array: taken(array, at, 0), axes: axes.filter((_, i) => i !== at) };
  }

  const isAttribution = (spec) => spec.draw === "map" || (spec.draw === "attention" && spec.target !== null);
  const several = (target) => ["top", "all", "list"].includes(target.mode) || target.step !== null;

  function place(spec) {
    const ofInput = spec.input !== null && spec.name.endsWith(`/${spec.input}`);
    if (spec.layer && !ofInput) return spec.call ? `${spec.layer}#${spec.call}` : spec.layer;
    return spec.input || spec.name;
  }

  const className = (names, index) => names?.[index] ?? `class ${index}`;

  const isDistribution = (values) =>
    values.length > 1 && values.every((one) => one >= 0) && Math.abs(values.reduce((a, b) => a + b, 0) - 1) < 1e-2;

  // What was fed to one input.
  class Source {
    constructor(spec, value, tokens, features) {
      this.spec = spec;
      const row = firstRow({ data: page.arrays.floats(value.data), dims: value.shape }, spec.axes);
      this.array = row.array;
      this.axes = row.axes;
      this.tokens = tokens ?? null;
      this.words = features ?? null;
      this.original = value.picture ?? null;
      this.time = value.time ?? null;
      this.names = value.names ?? null;
    }

    get isText() {
      const { spec } = this;
      const ids = spec.integer || spec.vocabulary !== null || !page.inputs.isFloat(spec);
      return ids && this.array.shape.length === 1;
    }

    get isImage() {
      const inner = this.axes.filter((axis) => !CHANNEL.includes(axis)).sort();
      return inner.length === 2 && inner[0] === "height" && inner[1] === "width";
    }

    get length() {
      const axis = axisOf(this.axes, SEQUENCE);
      return axis < 0 ? null : this.array.shape[axis];
    }

    // Names of the features along an axis of a size.
    featureNames(size) {
      if (this.names?.length === size) return this.names;
      const told = this.spec.features;
      if (told?.length >= size) return told.slice(0, size).map((one) => (one.unit ? `${one.name} [${one.unit}]` : one.name));
      if (this.words?.length >= size) return this.words.slice(0, size);
      if (size === 1) return [this.spec.name];
      return Array.from({ length: size }, (_, i) => `feature ${i}`);
    }

    // Which steps hold nothing, as the manifest says it; null where it does not.
    padded(sources) {
      const told = this.spec.padding;
      const telling = told && sources.find((one) => one.spec.name === told.input);
      if (!telling) return null;
      const is = Array.from(telling.array.data, (one) => told.values.includes(one));
      const axis = telling === this ? axisOf(this.axes, CHANNEL) : -1;
      if (axis < 0) return is.length === this.length ? is : null;
      if (this.array.shape.length !== 2) return null;
      const rows = axis === 1 ? telling.array : transpose(telling.array, [1, 0]);
      const size = rows.shape[1];
      return Array.from({ length: rows.shape[0] }, (_, i) =>
        Array.from(rows.data.subarray(i * size, (i + 1) * size)).every((one) => told.values.includes(one)));
    }
  }

  class View {
    constructor(spec, array, axes, run) {
      Object.assign(this, { spec, array, axes, run });
      this.isAttribution = isAttribution(spec);
      this.sources = run.sources;
      this.source = this.#sourceOf();
      this.classNames = run.manifest.class_names;
      this.family = [this]; // what is drawn in turn with this one, on one scale
    }

    // The named input, else the one that shares most axes, else the only one.
    #sourceOf() {
      const named = this.sources.find((one) => one.spec.name === this.spec.input);
      if (named) return named;
      const shared = this.sources.map((one) => one.axes.filter((axis) => this.spec.axes.includes(axis)).length);
      const most = Math.max(...shared);
      if (most > 0) return this.sources[shared.indexOf(most)];
      return this.sources.length === 1 ? this.sources[0] : null;
    }

    // The same of a part of the array.
    of(array, axes) {
      return new View(this.spec, array, axes, this.run);
    }

    has(...axes) {
      return axes.every((axis) => this.axes.includes(axis));
    }

    axis(names) {
      return axisOf(this.axes, names);
    }

    get space() {
      return this.axes.filter((axis) => SPACE.includes(axis));
    }

    get channel() {
      return this.axes.find((axis) => CHANNEL.includes(axis)) ?? null;
    }

    get sequence() {
      return this.axes.find((axis) => SEQUENCE.includes(axis)) ?? null;
    }

    get signed() {
      if (this.spec.sign === "any") return this.family.some((one) => one.array.data.some((value) => value < 0));
      return this.spec.sign === "signed";
    }

    get hasZero() {
      return this.spec.sign !== "any";
    }

    get isDerivative() {
      return this.spec.unit.includes(" per unit of ");
    }

    get preprocessing() {
      return this.source === null || "over_input" in this.spec.detail ? null : this.source.spec.preprocessing;
    }

    get quantity() {
      const { title } = this.spec;
      const name = /^.[^A-Z]*$/.test(title) && /[a-z]/.test(title.slice(1)) ? title[0].toLowerCase() + title.slice(1) : title;
      return this.spec.draw === "attention" ? name : (REDUCED[this.spec.detail.reduce] ?? name);
    }

    classes(size) {
      return this.classNames?.length === size ? this.classNames : null;
    }

    features(size) {
      return this.source ? this.source.featureNames(size) : Array.from({ length: size }, (_, i) => `feature ${i}`);
    }

    // The layer's own channel numbers, also where a probe kept only some.
    channels(size) {
      const kept = this.spec.detail.channels ?? [];
      return kept.length === size ? kept : Array.from({ length: size }, (_, i) => i);
    }

    // The tokens along an axis of a size; fewer where the rest is padding. Null where there are none.
    tokens(size) {
      const texts = this.sources.filter((one) => one.isText && one.array.shape[0] === size);
      const source = texts.includes(this.source) ? this.source : texts.length === 1 ? texts[0] : null;
      if (source === null) return null;
      return source.tokens ?? Array.from(source.array.data, String);
    }

    padding(size) {
      const padded = this.source?.padded(this.sources) ?? null;
      if (!padded || padded.length !== size || !padded.some(Boolean) || padded.every(Boolean)) return null;
      return padded;
    }

    // What stands at the steps of a sequence of that length.
    steps(size) {
      if (this.source?.time?.length === size) return this.source.time;
      const tokens = this.tokens(size);
      return tokens && [...tokens, ...new Array(size - tokens.length).fill("")];
    }
  }

  // Brings the largest weights to the places of their keys, zeros between.
  function atTheirKeys(largest, keys, sources) {
    const size = keys.data.reduce((most, one) => Math.max(most, one), -1) + 1;
    const lengths = new Set(sources.map((one) => one.length).filter((one) => one !== null && one >= size));
    const wide = lengths.size === 1 ? [...lengths][0] : size;
    const ranks = largest.shape[largest.shape.length - 1];
    const data = new Float64Array((largest.data.length / ranks) * wide);
    largest.data.forEach((one, i) => {
      data[Math.floor(i / ranks) * wide + keys.data[i]] = one;
    });
    return { data, shape: [...largest.shape.slice(0, -1), wide] };
  }

  // Returns the view of one output; the axis of several classes or steps stands first.
  function viewOf(spec, run) {
    let { array, axes } = firstRow(run.outputs[spec.name], spec.axes);
    const keys = run.outputs[`${spec.name}/keys`];
    if (keys && axes[axes.length - 1] === "rank") {
      array = atTheirKeys(array, firstRow(keys, spec.axes).array, run.sources);
      axes = [...axes.slice(0, -1), "key"];
    }
    const of = spec.target !== null && several(spec.target) && isAttribution(spec) ? (spec.target.step === null ? "class" : "step") : null;
    if (of !== null && axes.indexOf(of) > 0) {
      const at = axes.indexOf(of);
      const order = [at, ...axes.keys()].filter((axis, i) => i === 0 || axis !== at);
      array = transpose(array, order);
      axes = order.map((axis) => axes[axis]);
    }
    return new View(spec, array, axes, run);
  }

  // Names of the entries of an axis of classes; a single score is that of the second of two classes.
  function namesOfScores(names, size) {
    if (names?.length === 2 && size === 1) return [names[1]];
    return size === null || names?.length === size ? names : null;
  }

  const NTH = { 0: "best", 1: "second best", 2: "third best" };

  // Names of what is explained each by itself: steps of the output, or classes.
  function namesOfSeveral({ spec, run }, size) {
    const { target } = spec;
    const numbers = Array.from({ length: size }, (_, i) => i);
    if (target.step !== null) return numbers.map((i) => `step ${i}`);
    let chosen = target.mode === "list" ? target.chosen : numbers;
    if (target.mode === "top") {
      const told = run.outputs[`${spec.name}/classes`];
      if (told?.dims.length !== 2) return numbers.map((i) => `the ${NTH[i] ?? `${i + 1}th best`} at each position`);
      chosen = Array.from(told.data.subarray(0, size));
    }
    const known = namesOfScores(run.manifest.class_names, target.classes);
    return chosen.map((i) => (target.layer === null ? className(known, i) : `channel ${i}`));
  }

  // Names of the entries along an axis that is gone along.
  function namesAlong(view, axis, size) {
    const { detail } = view.spec;
    if (axisOfSeveral(view) === axis) return namesOfSeveral(view, size);
    if (axis === "layer" && detail.layers?.length === size) return detail.layers;
    const steps = SEQUENCE.includes(axis) ? view.steps(size) : null;
    return Array.from({ length: size }, (_, i) => (steps?.[i] ? `${axis} ${i}: ${steps[i]}` : `${axis} ${i}`));
  }

  // The axis of what is explained each by itself, classes or steps; null where there is none, or it is gone.
  function axisOfSeveral(view) {
    const { target } = view.spec;
    if (!view.isAttribution || target === null || !several(target)) return null;
    const axis = target.step === null ? "class" : "step";
    return view.axes[0] === axis && !view.sliced ? axis : null;
  }

  function predicted(run, target) {
    const { manifest } = run;
    const wanted = target?.output ?? null;
    const specs = manifest.outputs.filter((one) => one.kind === "prediction" && run.outputs[one.name]);
    const spec = specs.find((one) => one.name === wanted) ?? specs[0];
    if (!spec || spec.axes.length > 2) return null;
    return Array.from(firstRow(run.outputs[spec.name], spec.axes).array.data);
  }

  function saidOfPrediction(row, names) {
    if (row.length === 1) {
      const [value] = row;
      if (names?.length === 2 && value >= 0 && value <= 1) {
        const chosen = value >= 0.5 ? 1 : 0;
        return `predicted ${names[chosen]} (p = ${(chosen ? value : 1 - value).toFixed(2)})`;
      }
      return `predicted ${number(value)}`;
    }
    const top = argmax(row);
    if (isDistribution(row)) return `predicted ${className(names, top)} (p = ${row[top].toFixed(2)})`;
    return names?.length === row.length ? `predicted ${className(names, top)} (score ${number(row[top])})` : "";
  }

  function ofLayer(target) {
    const where = target.call ? `${target.layer}#${target.call}` : target.layer;
    const index = (target.index ?? []).filter((one) => one !== null);
    if (target.mode === "index" && index.length === 1) return `channel ${index[0]} of ${where}`;
    if (target.mode === "index") return index.length ? `an entry of ${where}` : `the sum of ${where}`;
    if (target.mode === "input") return `a channel chosen in this run, of ${where}`;
    return target.mode === "argmax" ? `the strongest channel of ${where}` : `channels of ${where}`;
  }

  function explained(run, target, row, names) {
    if (target.mode === "callable") return `explained: ${target.name || "a function of the outputs"}`;
    if (target.mode === "contrast") {
      const of = target.layer === null ? names : null;
      return `explained: ${target.chosen.map((one) => (typeof one === "number" ? className(of, one) : RANKS[one])).join(" rather than ")}`;
    }
    if (target.layer !== null) return `explained: ${ofLayer(target)}`;
    if (row?.length === 1) { // what is explained speaks for the second of two classes
      return names?.length === 2 && row[0] >= 0 && row[0] < 0.5 ? `explained: ${names[1]}` : "";
    }
    const { axes, sizes } = axesOf(run, target.output);
    const ofUnits = axes.length > 0 && axes[axes.length - 1] !== "class" && !names;
    if (target.mode === "index" && (ofUnits || axes.length > 1)) {
      const said = entry(axes, sizes, target, names);
      return said ? `explained: ${said}` : "";
    }
    let index = null;
    if (target.mode === "index" && target.index?.length) index = target.index[target.index.length - 1];
    if (target.mode === "input") index = run.target;
    if (index === null || index < 0) return "";
    if (row && index === argmax(row)) return "";
    return `explained: ${ofUnits ? `${axes[axes.length - 1]} ${index}` : className(names, index)}`;
  }

  // The axes of a prediction but that of the batch, and their sizes.
  function axesOf(run, name) {
    const spec = run.manifest.outputs.find((one) => one.name === name);
    const array = run.outputs[name];
    if (!spec || !array) return { axes: [], sizes: [] };
    const kept = spec.axes.map((axis, i) => [axis, array.dims[i]]).filter(([axis]) => axis !== "batch");
    return { axes: kept.map(([axis]) => axis), sizes: kept.map(([, size]) => size) };
  }

  // Which entry of an output is explained: "step 0, unit 2"; axes that are summed over are left out.
  function entry(axes, sizes, target, names) {
    const entries = target.index ?? [];
    if (entries.length !== axes.length) return "";
    return entries.map((one, i) => {
      if (one === null || sizes[i] === 1) return "";
      if (one === -1) return `last ${axes[i]}`;
      return i === axes.length - 1 && names && one < names.length && one >= 0 ? names[one] : `${axes[i]} ${one}`;
    }).filter(Boolean).join(", ");
  }

  // Returns for instance "predicted seven (p = 0.98), explained: nine"; may be empty.
  function verdict(view) {
    const target = view.isAttribution ? view.spec.target : null;
    const row = predicted(view.run, target);
    const said = row ? [saidOfPrediction(row, view.classNames)] : [];
    if (target !== null) said.push(explained(view.run, target, row, view.classNames));
    return said.filter(Boolean).join(", ");
  }

  // Says what has to be known of the numbers: unit, what is not finite, what all zeros mean.
  function remarks(view) {
    const { spec, array } = view;
    const said = spec.unit && array.data.length ? [`unit: ${spec.unit}`] : [];
    const wrong = array.data.filter((one) => !Number.isFinite(one)).length;
    if (wrong) said.push(`${wrong} of ${array.data.length} values are not finite`);
    if (view.isAttribution && array.data.length) {
      if (array.data.every((one) => one === 0)) said.push("all zero: the target does not react");
      if (spec.target?.logits) said.push("of the logit, the score before softmax or sigmoid");
    }
    return said;
  }

  page.views = {
    Source, axisOfSeveral, className, isAttribution, isDistribution, namesAlong, namesOfScores, place, remarks, verdict, viewOf,
  };
})((globalThis.probegen = globalThis.probegen || {}));
