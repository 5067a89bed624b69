// The table of widgets, and the part of the page that gives one input.
(function (page) {
  "use strict";

  const { labelled, make } = page.drawing;
  const { TABLE, innerSizes, numbers, opener, picture, row, rowChoice, series, text } = page.widgets;

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
      set: (number) => widget().set?.(number),
      value: async (given) => given.set(spec.name, await widget().value()),
    };
  }

  const isSingle = (spec) => innerSizes(spec).every((size) => size === 1);

  // A table with a column for each input, where each takes one number: a row gives them all.
  function partOfTable(own, told, changed) {
    const names = own.map((part) => part.spec.name);
    const choice = rowChoice(show);
    let table = null;

    function show(row) {
      own.forEach((part) => part.set(table.rows[row][table.names.indexOf(part.spec.name)]));
      changed();
    }

    async function load(file) {
      const read = page.tables.read(await file.text());
      const fits = read.names && JSON.stringify([...read.names].sort()) === JSON.stringify([...names].sort());
      if (!fits) throw new page.InputError(`The model has ${names.length} inputs: name the columns of the table so in its first row: ${names.join(", ")}.`);
      table = read;
      choice.offer(read.rows.length);
    }

    const open = opener("Open a table with a column for each input", ".csv,.tsv,.txt", load, told.problem);
    return { element: make("fieldset", {}, make("legend", {}, "a row of a table"), open, choice.element), accepts: (file) => TABLE.test(file.name), load, value: async () => {} };
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
    const own = given.inputs.map((spec) => partOfInput(spec, told, changed));
    const isTable = !texts.length && own.length > 1 && given.inputs.every(isSingle);
    return [...(isTable ? [partOfTable(own, told, changed)] : []), ...texts, ...own];
  }

  page.parts = parts;
})((globalThis.probegen = globalThis.probegen || {}));
