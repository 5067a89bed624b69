// What was predicted: classes as bars, other numbers as columns or one number, classes of pixels as a map.
(function (page) {
  "use strict";

  const { ordered } = page.arrays;
  const { css, number, probability } = page.scales;
  const { bars, canvas, chart, displayable, legend, make, panel, pictureCanvas } = page.drawing;
  const { className, isDistribution } = page.views;
  const TOP = 10;
  const LEGEND = 10;
  const MOST_LINES = 6;
  // Okabe and Ito's eight colours, told apart with any colour vision.
  const CATEGORIES = ["0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "f0e442", "000000"];

  function topClasses(parent, values, names) {
    const score = (i) => (Number.isNaN(values[i]) ? -Infinity : values[i]);
    const order = values.map((_, i) => i).sort((a, b) => score(b) - score(a)).slice(0, TOP);
    const probable = isDistribution(values);
    const rows = order.map((i, rank) => ({
      name: className(names, i),
      value: values[i],
      colour: rank ? "var(--pale)" : "var(--link)",
      written: probable ? probability(values[i]) : number(values[i]),
    }));
    parent.append(bars(rows, probable ? { low: 0, high: 1 } : {}));
    return order.length < values.length ? [`showing the ${order.length} highest of ${values.length} classes`] : [];
  }

  function vector(view, parent) {
    const values = Array.from(view.array.data);
    const names = view.classes(values.length);
    if (values.length === 1) {
      const two = view.classes(2);
      if (two && values[0] >= 0 && values[0] <= 1) return topClasses(parent, [1 - values[0], values[0]], two);
      parent.append(make("p", { class: "one-number" }, number(values[0])));
      return [];
    }
    if (names || view.axes[0] === "class" || isDistribution(values)) return topClasses(parent, values, names);
    parent.append(chart({ columns: values, signed: values.some((one) => one < 0), label: view.quantity }));
    return [];
  }

  function pixelClasses(view, parent) {
    const scores = ordered(view.array, view.axes, ["height", "width", view.channel]);
    const [height, width, classes] = scores.shape;
    const labels = Array.from({ length: height * width }, (_, i) => {
      const row = scores.data.subarray(i * classes, (i + 1) * classes);
      return row.reduce((best, one, at) => (one > row[best] || Number.isNaN(row[best]) ? at : best), 0);
    });
    const rounds = Math.ceil(classes / CATEGORIES.length);
    const colourOf = (label) => {
      const base = CATEGORIES[label % CATEGORIES.length].match(/../g).map((pair) => parseInt(pair, 16));
      const lighter = (0.65 * Math.floor(label / CATEGORIES.length)) / rounds;
      return base.map((part) => Math.round(part + (255 - part) * lighter));
    };
    const colours = Array.from({ length: classes }, (_, label) => colourOf(label));
    const paint = (pixels) => labels.forEach((label, i) => pixels.set(colours[label], 4 * i));
    const under = page.pictureMap.pictureUnder(view);
    const panels = make("div", { class: "panels" });
    if (under) panels.append(panel("input", pictureCanvas(under.base, "the input")));
    panels.append(panel("most probable class", canvas(height, width, paint, "most probable class of each pixel")));
    const counts = new Map();
    for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
    const found = [...counts].sort((a, b) => b[1] - a[1]).slice(0, LEGEND);
    const named = found.map(([label]) => className(view.classes(classes), label));
    parent.append(panels, legend(named, found.map(([label]) => css(colourOf(label)))));
    return found.length < counts.size ? [`the legend names the ${found.length} largest of ${counts.size} classes found`] : [];
  }

  function image(view, parent) {
    const sizes = [...["height", "width"], ...(view.channel ? [view.channel] : [])];
    const pixels = ordered(view.array, view.axes, sizes);
    const channels = view.channel === null ? 1 : pixels.shape[2];
    if (view.channel === "class" || view.classes(channels)) return pixelClasses(view, parent);
    if (channels !== 1 && channels !== 3) return page.channelMaps.draw(view, parent);
    const { base, notes } = displayable({ data: pixels.data, shape: [pixels.shape[0], pixels.shape[1], channels] });
    const under = page.pictureMap.pictureUnder(view);
    const panels = make("div", { class: "panels" });
    if (under) panels.append(panel("input", pictureCanvas(under.base, "the input")));
    panels.append(panel("output", pictureCanvas(base, "the output")));
    parent.append(panels);
    return notes;
  }

  // Lines over the steps; many of them, and classes, are a heat map.
  function sequence(view, parent) {
    const rest = view.axes.filter((axis) => axis !== view.sequence);
    const rows = page.seriesBars.rowsOf(view.array, view.axes, view.sequence);
    const names = view.classes(rows.length) ?? rows.map((_, i) => `${rest[0]} ${i}`);
    if (rows.length === 1 || rows.length > MOST_LINES || rest[0] === "class") return page.heatMap.draw(view, parent);
    const colours = CATEGORIES.slice(0, MOST_LINES).map((digits) => `#${digits}`);
    parent.append(chart({ lines: rows, colours, label: view.quantity, high: 160 }), legend(names, colours));
    return [];
  }

  const isImage = (view) => page.channelMaps.fits(view);
  const isSequence = (view) => view.sequence !== null && !view.space.length && view.axes.length <= 2;
  const fits = (view) => view.spec.draw === "prediction" && (isSequence(view) || isImage(view) || view.axes.length === 1);

  function draw(view, parent) {
    if (isSequence(view)) return sequence(view, parent);
    return isImage(view) ? image(view, parent) : vector(view, parent);
  }

  page.prediction = { draw, fits };
})((globalThis.probegen = globalThis.probegen || {}));
