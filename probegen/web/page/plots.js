// The table of plots, and which of them fits what an output says of itself. The first that fits is
// drawn; where none does, a choice goes along one axis until one does.
(function (page) {
  "use strict";

  const { taken } = page.arrays;
  const { choice, make } = page.drawing;
  const { axisOfSeveral, namesAlong } = page.views;

  const PLOTS = [
    ["attention", page.attention],
    ["attribution to a picture", page.pictureMap],
    ["attribution to tokens", page.tokenBoxes],
    ["attribution to a series", page.seriesBars],
    ["attribution to features", page.featureBars],
    ["prediction", page.prediction],
    ["maps of channels", page.channelMaps],
    ["anything else", page.heatMap],
  ];

  // Which axis is gone along where there are too many.
  function axisTooMuch(view) {
    const inPicture = view.has("height", "width");
    const wanted = inPicture ? ["depth", view.sequence] : view.has("key") ? ["layer", view.sequence] : [];
    return wanted.find((axis) => axis && view.axes.includes(axis)) ?? view.axes.find((axis) => axis !== view.sequence) ?? view.axes[0];
  }

  function sliced(view, axis, parent) {
    const at = view.axes.indexOf(axis);
    const place = make("div");
    const notes = make("p", { class: "muted" });
    const size = view.array.shape[at];
    const rest = view.axes.filter((_, i) => i !== at);
    const family = Array.from({ length: size }, (_, entry) => view.of(taken(view.array, at, entry), rest));
    for (const part of family) Object.assign(part, { sliced: true, family });
    const show = (entry) => {
      place.replaceChildren();
      notes.textContent = drawn(family[entry], place).join("; ");
    };
    const chosen = choice(view, axis, namesAlong(view, axis, size), show);
    parent.append(make("div", { class: "row" }, chosen.element), place, notes);
    show(chosen.at);
    return [];
  }

  // Draws a view into an element; returns what a reader must know.
  function drawn(view, parent) {
    if (!view.array.data.length) {
      parent.append(make("p", { class: "muted" }, "no numbers"));
      return [];
    }
    const axis = axisOfSeveral(view);
    if (axis !== null) return sliced(view, axis, parent);
    const plot = PLOTS.find(([, one]) => one.fits(view));
    return plot ? plot[1].draw(view, parent) : sliced(view, axisTooMuch(view), parent);
  }

  page.plots = { PLOTS, drawn };
})((globalThis.probegen = globalThis.probegen || {}));
