// An attribution to the steps of a series: each feature's line with its bars beneath.
(function (page) {
  "use strict";

  const { concatenated, ordered, reach, resized, transpose } = page.arrays;
  const { chart, make } = page.drawing;
  const MOST_FEATURES = 5;

  // Returns an array of a sequence as rows: a Float64Array of steps for each feature.
  function rowsOf(array, axes, sequence) {
    const rest = axes.filter((axis) => axis !== sequence);
    const rows = ordered(array, axes, [...rest, sequence]);
    const size = rows.shape[rows.shape.length - 1];
    return Array.from({ length: rows.data.length / size }, (_, i) => rows.data.slice(i * size, (i + 1) * size));
  }

  const fits = (view) =>
    view.isAttribution && view.sequence !== null && !view.space.length && view.axes.length <= 2 &&
    view.source !== null && !view.source.isText && view.source.length > 0 && view.source.array.shape.length <= 2;

  function draw(view, parent) {
    const { source } = view;
    const notes = [];
    const lines = rowsOf(source.array, source.axes, source.axes.find((axis) => page.arrays.SEQUENCE.includes(axis)));
    let heat = rowsOf(view.array, view.axes, view.sequence);
    if (heat[0].length !== lines[0].length) {
      notes.push(`${heat[0].length} steps brought to the input's ${lines[0].length}`);
      const flat = { data: concatenated(heat), shape: [heat.length, heat[0].length] };
      const brought = transpose(resized(transpose(flat, [1, 0]), [lines[0].length]), [1, 0]);
      heat = heat.map((_, i) => brought.data.slice(i * lines[0].length, (i + 1) * lines[0].length));
    }
    const padded = view.padding(lines[0].length);
    if (padded) {
      heat = heat.map((row) => row.map((value, i) => (padded[i] ? 0 : value)));
      notes.push(`${padded.filter(Boolean).length} of ${padded.length} steps are padding, without bars`);
    }
    const paired = heat.length === lines.length;
    let order = lines.map((_, i) => i);
    if (paired) {
      const size = (row) => row.reduce((total, value) => total + (Number.isNaN(value) ? 0 : Math.abs(value)), 0);
      order = order.sort((a, b) => size(heat[b]) - size(heat[a]));
    } else if (heat.length > 1) {
      notes.push(`sum over ${heat.length} channels`);
      heat = [heat[0].map((_, i) => heat.reduce((total, row) => total + row[i], 0))];
    }
    const kept = order.slice(0, MOST_FEATURES).sort((a, b) => a - b);
    if (kept.length < lines.length) {
      notes.push(`showing ${kept.length} of ${lines.length} features${paired ? " with the largest attributions" : ""}`);
    }
    const names = source.featureNames(lines.length);
    const bars = paired ? kept.map((i) => heat[i]) : heat;
    const limit = 1.08 * (reach(concatenated(bars)) || 1);
    const drawn = make("div", { class: "series" });
    const columns = (row, of) => chart({ columns: row, signed: view.signed, limit, high: 60, label: `${view.quantity} of ${of}` });
    kept.forEach((place, i) => {
      drawn.append(make("h4", {}, names[place]), chart({ lines: [lines[place]], label: names[place] }));
      if (paired) drawn.append(columns(bars[i], names[place]));
    });
    if (!paired) drawn.append(columns(bars[0], "all features"));
    const steps = view.steps(lines[0].length);
    const last = lines[0].length - 1;
    drawn.append(make("p", { class: "muted ends-of-time" }, make("span", {}, steps?.[0] || "step 0"), make("span", {}, view.quantity), make("span", {}, steps?.[last] || `step ${last}`)));
    parent.append(drawn);
    return notes;
  }

  page.seriesBars = { draw, fits, rowsOf };
})((globalThis.probegen = globalThis.probegen || {}));
