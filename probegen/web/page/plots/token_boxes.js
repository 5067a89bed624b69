// An attribution to the tokens of a text: coloured boxes in reading order.
(function (page) {
  "use strict";

  const { joined, norm, ordered, sum } = page.arrays;
  const { WARM, attributionScale, colour, css, inkOn, number } = page.scales;
  const { make, scaleBar } = page.drawing;
  const MOST_TOKENS = 400;

  // Returns a number a step: shares are summed up over the other axis, slopes joined by their norm.
  function aStep(view) {
    const rest = view.axes.filter((axis) => axis !== view.sequence);
    const values = ordered(view.array, view.axes, [view.sequence, ...rest]);
    if (!rest.length || values.shape[1] === 1) return { values: values.data, signed: view.signed, notes: [] };
    const shares = view.signed && !view.isDerivative;
    const how = shares ? "sum" : "Euclidean norm";
    return {
      values: joined(values, shares ? sum : norm).data,
      signed: shares,
      notes: [`${how} over ${values.shape[1]} dimensions`],
    };
  }

  // A token on the ground of its colour.
  function box(token, value, scale, label) {
    const rgb = colour(scale, value);
    const made = make("span", { class: "token", title: `${label} ${number(value)}` }, page.texts.written(token));
    made.style.background = css(rgb);
    made.style.color = inkOn(rgb);
    return made;
  }

  const fits = (view) =>
    view.isAttribution && view.sequence !== null && !view.space.length && view.axes.length <= 2 &&
    view.tokens(view.array.shape[view.axes.indexOf(view.sequence)]) !== null;

  function draw(view, parent) {
    const { values, signed, notes } = aStep(view);
    const tokens = view.tokens(values.length);
    const padded = view.padding(values.length);
    const shown = tokens.map((token, place) => ({ token, value: values[place] })).filter((_, place) => !padded?.[place]);
    if (shown.length < tokens.length) notes.push(`${tokens.length - shown.length} of ${tokens.length} positions are padding, left out`);
    const others = view.family.filter((one) => one !== view).flatMap((one) => [...aStep(one).values]);
    if (others.length) notes.push("one scale for all of them");
    const scale = attributionScale([...shown.map((one) => one.value), ...others], { signed, colours: WARM, clip: false, hasZero: view.hasZero });
    const text = make("div", { class: "text", dir: "auto" });
    for (const { token, value } of shown.slice(0, MOST_TOKENS)) text.append(box(token, value, scale, view.quantity), "\u200b");
    if (shown.length > MOST_TOKENS) notes.push(`showing ${MOST_TOKENS} of ${shown.length} tokens`);
    parent.append(text, scaleBar(scale, view.quantity));
    return notes;
  }

  page.tokenBoxes = { aStep, box, draw, fits };
})((globalThis.probegen = globalThis.probegen || {}));
