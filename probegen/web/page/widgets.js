// The table of widgets, and the part of the page that gives one input.
(function (page) {
  "use strict";

  const { labelled, make } = page.drawing;
  const { numbers, picture, row, series, text } = page.widgets;

  const WIDGETS = [picture, row, series, numbers];

  // Which widgets an input can be given by, the likeliest first.
  function fitting(spec) {
    const found = WIDGETS.filter((widget) => widget.fits(spec));
    return found.sort((a, b) => Number(a.isGuess?.(spec) ?? false) - Number(b.isGuess?.(spec) ?? false) || WIDGETS.indexOf(a) - WIDGETS.indexOf(b));
  }

  // The part of one input: { name, element, value, load, accepts }; `value` adds to a Map by input.
  function partOfInput(spec, told, changed) {
    const able = fitting(spec);
    const made = new Map();
    let current = able[0];
    const place = make("div");
    const widget = () => {
      if (!made.has(current)) made.set(current, current.make(spec, told, changed));
      return made.get(current);
    };
    const show = (chosen) => {
      current = chosen;
      as.selectedIndex = able.indexOf(chosen);
      place.replaceChildren(widget().element);
    };
    const as = make("select", { autocomplete: "off", change: () => show(able[as.selectedIndex]) }, ...able.map((one) => make("option", {}, one.title)));
    const element = make("fieldset", {}, make("legend", {}, spec.name), able.length > 1 ? labelled("Given as", as) : null, place);
    show(current);
    return {
      spec,
      element,
      accepts: (file) => able.some((one) => one.accepts(file)),
      load: (file) => {
        if (!current.accepts(file)) show(able.find((one) => one.accepts(file)));
        return widget().load(file);
      },
      value: async (given) => given.set(spec.name, await widget().value()),
    };
  }

  async function partOfText(entry, manifest, told, changed) {
    const widget = await text.make(entry, manifest, told, changed);
    return {
      element: make("fieldset", {}, make("legend", {}, entry.name), widget.element),
      accepts: widget.accepts,
      load: widget.load,
      value: async (given) => (await widget.value()).forEach((array, name) => given.set(name, array)),
    };
  }

  // Returns the parts of all that a user gives.
  async function parts(manifest, told, changed) {
    const given = page.inputs.asGiven(manifest);
    const texts = await Promise.all(given.texts.map((entry) => partOfText(entry, manifest, told, changed)));
    return [...texts, ...given.inputs.map((spec) => partOfInput(spec, told, changed))];
  }

  page.parts = parts;
})((globalThis.probegen = globalThis.probegen || {}));
