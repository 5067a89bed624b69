// What a layer gives out for a picture: a map a channel, on one scale; one of them can be enlarged.
(function (page) {
  "use strict";

  const { concatenated, ordered, taken } = page.arrays;
  const { scaleOf } = page.scales;
  const { make, mapCanvas, panel, scaleBar } = page.drawing;
  const MOST = 64;

  function fits(view) {
    const rest = view.axes.filter((axis) => axis !== "height" && axis !== "width");
    return view.has("height", "width") && (rest.length === 0 || (rest.length === 1 && rest[0] === view.channel));
  }

  function draw(view, parent) {
    const { channel } = view;
    const maps = channel === null
      ? { data: ordered(view.array, view.axes, ["height", "width"]).data, shape: [1, ...["height", "width"].map((axis) => view.array.shape[view.axes.indexOf(axis)])] }
      : ordered(view.array, view.axes, [channel, "height", "width"]);
    const count = maps.shape[0];
    const shown = Math.min(count, MOST);
    const size = maps.shape[1] * maps.shape[2];
    const isAlone = view.family.length === 1;
    const scale = scaleOf(isAlone ? maps.data.subarray(0, shown * size) : concatenated(view.family.map((one) => one.array.data)));
    const numbers = view.channels(count);
    const single = (i, label) => mapCanvas(taken(maps, 0, i), scale, label);
    if (count === 1) {
      parent.append(panel(view.quantity, single(0, view.quantity)), scaleBar(scale, view.quantity));
      return [];
    }
    const large = make("div");
    const grid = make("div", { class: "grid", role: "group", "aria-label": `${channel}s` });
    const key = `${view.spec.name}\nchannel`;
    const choose = (i) => {
      view.run.choices.set(key, i);
      [...grid.children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === i)));
      const name = `${channel} ${numbers[i]}`;
      large.replaceChildren(panel(name, single(i, name)));
    };
    for (let i = 0; i < shown; i += 1) {
      const name = `${channel} ${numbers[i]}`;
      const small = single(i, "");
      small.setAttribute("aria-hidden", "true");
      grid.append(make("button", { type: "button", "aria-label": name, title: name, click: () => choose(i) }, small, make("span", { "aria-hidden": "true" }, String(numbers[i]))));
    }
    parent.append(make("div", { class: "beside" }, large, grid), scaleBar(scale, view.quantity));
    choose(Math.min(view.run.choices.get(key) ?? 0, shown - 1));
    return shown < count ? [`showing ${shown} of ${count} ${channel}s`] : [];
  }

  page.channelMaps = { draw, fits };
})((globalThis.probegen = globalThis.probegen || {}));
