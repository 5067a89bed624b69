// Numbers without a picture of their own: a line or columns of a vector, a heat map of two axes.
(function (page) {
  "use strict";

  const { ordered } = page.arrays;
  const { number, scaleOf } = page.scales;
  const { chart, make, mapCanvas, scaleBar } = page.drawing;

  const fits = (view) => view.axes.length <= 2;

  function ends(view, axis, size, isMap = false) {
    const steps = axis === view.sequence ? view.steps(size) : null;
    const name = (i) => steps?.[i] || `${axis} ${axis === view.channel ? view.channels(size)[i] : i}`;
    return make("p", { class: `muted ends-of-time${isMap ? " of-map" : ""}` }, make("span", {}, name(0)), make("span", {}, name(size - 1)));
  }

  function draw(view, parent) {
    const { array, axes } = view;
    if (!axes.length) {
      parent.append(make("p", { class: "one-number" }, number(array.data[0])));
      return [];
    }
    if (axes.length === 1) {
      const values = Array.from(array.data);
      const signed = values.some((one) => one < 0);
      const drawn = view.sequence ? { lines: [values] } : { columns: values, signed };
      parent.append(chart({ ...drawn, label: view.quantity }), ends(view, axes[0], values.length));
      return [];
    }
    const across = view.sequence ?? axes[1];
    const down = axes.find((axis) => axis !== across) ?? axes[0];
    const map = across === down ? array : ordered(array, axes, [down, across]);
    const scale = scaleOf(map.data);
    const drawn = mapCanvas(map, scale, `${view.quantity}: ${map.shape[0]} of ${down} down, ${map.shape[1]} of ${across} across`);
    drawn.classList.add("stretched");
    parent.append(drawn, ends(view, across, map.shape[1], true), make("p", { class: "muted" }, `${down} down, ${across} across`), scaleBar(scale, view.quantity));
    return [];
  }

  page.heatMap = { draw, fits };
})((globalThis.probegen = globalThis.probegen || {}));
