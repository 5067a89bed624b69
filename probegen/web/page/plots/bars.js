// An attribution to the features of a vector: bars, the largest first.
(function (page) {
  "use strict";

  const { number } = page.scales;
  const { bars, bySign } = page.drawing;
  const MOST = 15;

  const fits = (view) => view.isAttribution && view.axes.length === 1 && !view.space.length && view.sequence === null;

  function namesOf(view, size) {
    const [axis] = view.axes;
    if (axis !== "feature" && axis !== "channel") {
      const own = view.spec.detail.names ?? [];
      const known = axis === "class" ? view.classes(size) : own.length === size ? own : null;
      return known ?? Array.from({ length: size }, (_, i) => `${axis} ${i}`);
    }
    const names = view.features(size);
    const given = view.source?.array;
    return given?.data.length === size ? names.map((name, i) => `${name} = ${number(given.data[i])}`) : names;
  }

  function draw(view, parent) {
    const values = Array.from(view.array.data);
    const names = namesOf(view, values.length);
    const size = (value) => (Number.isNaN(value) ? 0 : Math.abs(value));
    const order = values.map((_, i) => i).sort((a, b) => size(values[b]) - size(values[a]));
    const top = order.slice(0, MOST);
    const rest = order.slice(MOST);
    const rows = top.map((i) => ({ name: names[i], value: values[i], colour: bySign(values[i], view.signed) }));
    const notes = [];
    if (rest.length && view.spec.detail.sums_to_score === true) {
      const value = rest.reduce((total, i) => total + (Number.isNaN(values[i]) ? 0 : values[i]), 0);
      rows.push({ name: `sum of ${rest.length} others`, value, colour: bySign(value, view.signed) });
    } else if (rest.length) {
      notes.push(`showing the ${MOST} largest of ${values.length} features`);
    }
    parent.append(bars(rows));
    return notes;
  }

  page.featureBars = { draw, fits };
})((globalThis.probegen = globalThis.probegen || {}));
