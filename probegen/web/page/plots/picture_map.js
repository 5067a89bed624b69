// An attribution over a picture: the picture, the map, and one over the other.
(function (page) {
  "use strict";

  const { CHANNEL, concatenated, joined, largest, ordered, overPicture, sum } = page.arrays;
  const { attributionScale, HEAT } = page.scales;
  const { displayable, mapCanvas, make, overlayCanvas, panel, pictureCanvas, scaleBar } = page.drawing;

  // Pixels of all that is drawn in turn, beyond which each has a scale of its own.
  const MOST_NUMBERS = 4e6;

  // Returns the map `[height, width]`, its channels joined, and what to say of that.
  function oneMap(view) {
    const { channel } = view;
    if (channel === null) return { map: ordered(view.array, view.axes, ["height", "width"]), notes: [] };
    const maps = ordered(view.array, view.axes, ["height", "width", channel]);
    const size = maps.shape[2];
    const how = view.signed ? sum : largest;
    const notes = size === 1 ? [] : [`${view.signed ? "sum over" : "largest of"} ${size} channels`];
    return { map: joined(maps, how), notes };
  }

  // Returns the picture that a map lies over; null where its input is none.
  function pictureUnder(view) {
    const { source } = view;
    if (source?.original) return displayable(source.original);
    if (!source?.isImage) return null;
    const channel = source.axes.find((axis) => CHANNEL.includes(axis));
    const names = ["height", "width", ...(channel ? [channel] : [])];
    const pixels = ordered(source.array, source.axes, names);
    return displayable(channel ? pixels : { data: pixels.data, shape: [...pixels.shape, 1] });
  }

  function fits(view) {
    const { axes } = view;
    const rest = axes.filter((axis) => axis !== "height" && axis !== "width");
    return view.isAttribution && view.has("height", "width") && (rest.length === 0 || (rest.length === 1 && rest[0] === view.channel));
  }

  function draw(view, parent) {
    const { map, notes } = oneMap(view);
    const under = pictureUnder(view);
    const size = under ? under.base.shape.slice(0, 2) : map.shape;
    const same = map.shape[0] === size[0] && map.shape[1] === size[1];
    if (!same) notes.push(`${map.shape[0]}\u00d7${map.shape[1]} map brought to the input's size`);
    const heatOf = (one) => overPicture(one, size, view.preprocessing);
    const heat = heatOf(map);
    const several = view.family.length > 1;
    const isLarge = view.family.length * heat.data.length > MOST_NUMBERS;
    if (several) notes.push(isLarge ? "on a scale of its own" : "one scale for all of them");
    const every = several && !isLarge ? concatenated(view.family.map((one) => heatOf(oneMap(one).map).data)) : heat.data;
    const scale = attributionScale(every, { signed: view.signed, colours: HEAT, clip: same, hasZero: view.hasZero });
    const panels = make("div", { class: "panels" });
    if (under) panels.append(panel("input", pictureCanvas(under.base, "the input")));
    panels.append(panel(view.spec.title, mapCanvas(heat, scale, `${view.spec.title} as a map`)));
    if (under) panels.append(panel("overlay", overlayCanvas(under.base, heat, scale, `${view.spec.title} over the input`)));
    parent.append(panels, scaleBar(scale, view.quantity));
    return [...notes, ...(under?.notes ?? [])];
  }

  page.pictureMap = { draw, fits, pictureUnder };
})((globalThis.probegen = globalThis.probegen || {}));
