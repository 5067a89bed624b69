// Any numbers, for what has no widget of its own: nested lists as JSON, or numbers in a row.
(function (page) {
  "use strict";

  const { count } = page.arrays;
  const { make } = page.drawing;
  const { field, innerSizes, opener, withBatch } = page.widgets;
  // Inputs of so many numbers begin with zeros.
  const MOST_ZEROS = 64;

  // Returns the sizes of nested lists; null where lists of one level differ in length.
  function shapeOf(nested) {
    if (!Array.isArray(nested)) return [];
    const [first, ...others] = nested.map(shapeOf);
    if (first === undefined) return [0];
    const same = first !== null && others.every((one) => one !== null && one.join() === first.join());
    return same ? [nested.length, ...first] : null;
  }

  // Returns { data, shape } of one sample, read from text.
  function parsed(text, spec) {
    const sizes = innerSizes(spec);
    if (/^\s*\[/.test(text)) {
      let nested;
      try {
        nested = JSON.parse(text);
      } catch (error) {
        throw new page.InputError(`"${spec.name}" is no JSON: ${error.message}`);
      }
      const shape = shapeOf(nested);
      const data = nested.flat(Infinity);
      if (shape === null) throw new page.InputError(`"${spec.name}" is no regular array: its lists differ in length.`);
      if (!data.every((one) => typeof one === "number" || typeof one === "boolean")) throw new page.InputError(`"${spec.name}" takes numbers alone.`);
      return { data: data.map(Number), shape };
    }
    const words = text.trim().split(/[\s,;]+/).filter(Boolean);
    const data = words.map((word) => (/^nan$/i.test(word) ? NaN : Number(word)));
    const wrong = words.find((word, i) => Number.isNaN(data[i]) && !/^nan$/i.test(word));
    if (wrong !== undefined) throw new page.InputError(`"${spec.name}": "${wrong.slice(0, 40)}" is no number.`);
    const open = sizes.flatMap((size, i) => (size === null ? [i] : []));
    if (open.length > 1) throw new page.InputError(`"${spec.name}" has several open axes: write its numbers as nested lists, [[1, 2], [3, 4]].`);
    const known = count(sizes.filter((size) => size !== null));
    const shape = sizes.map((size) => size ?? data.length / known);
    if (count(shape) !== data.length || !shape.every(Number.isInteger)) {
      throw new page.InputError(`"${spec.name}" has ${data.length} numbers, expected ${open.length ? `a multiple of ${known}` : known}: ${page.inputs.described(spec)}.`);
    }
    return { data, shape };
  }

  function makeWidget(spec, told, changed) {
    const sizes = innerSizes(spec);
    const isSmall = sizes.every((size) => size !== null) && count(sizes) <= MOST_ZEROS;
    const area = make("textarea", { rows: 3, spellcheck: "false", autocomplete: "off", input: changed });
    area.value = isSmall ? new Array(count(sizes)).fill(0).join(" ") : "";
    const what = `${spec.vocabulary === null ? "numbers" : `ids from 0 to ${spec.vocabulary - 1}`} ${page.inputs.described(spec)}`;

    async function value() {
      if (!area.value.trim()) throw new page.InputError(`Give "${spec.name}": ${what}.`);
      const { data, shape } = parsed(area.value, spec);
      return withBatch(spec, data, shape);
    }

    async function load(file) {
      area.value = await file.text();
      changed();
    }

    const help = `${what}; divided by blanks, or as nested lists without the batch`;
    const element = make("div", {}, field("Numbers", area, help), opener("Open a JSON file", ".json", load, told.problem));
    const set = (number) => {
      area.value = String(number);
    };
    return { element, value, load, set };
  }

  page.widgets.numbers = { title: "numbers", fits: () => true, accepts: (file) => /\.json$/i.test(file.name), make: makeWidget, parsed };
})((globalThis.probegen = globalThis.probegen || {}));
