// A text that the page takes apart; of a tokenizer that it has not got, the ids.
(function (page) {
  "use strict";

  const { make } = page.drawing;
  const { field } = page.widgets;

  // Makes the widget of a manifest's entry `text`. Its value is a Map of inputs by name.
  async function makeWidget(text, manifest, told, changed) {
    const tokenizer = await page.texts.tokenizerOf(text);
    const specs = Object.fromEntries(Object.entries(text.makes).map(([what, name]) => [what, manifest.inputs.find((spec) => spec.name === name)]));
    const inner = text.shape.slice(1);
    const fixed = inner.reduce((product, size) => product * (size ?? 1), 1);
    const pairs = Boolean(tokenizer?.pairs) && fixed === 1;
    const areas = Array.from({ length: tokenizer ? fixed + (pairs ? 1 : 0) : 1 }, () =>
      make("textarea", { rows: 3, dir: "auto", spellcheck: "false", autocomplete: "off", input: changed }));

    function idsGiven() {
      const words = areas[0].value.trim().split(/[\s,;]+/).filter(Boolean);
      if (!words.length) throw new page.InputError(`Give the ids of "${text.name}".`);
      const ids = words.map(Number);
      if (!ids.every(Number.isInteger)) throw new page.InputError(`The ids of "${text.name}" are whole numbers, divided by blanks.`);
      const { length = null, padding = 0, side } = text.tokenizer;
      if (length !== null && ids.length > length) throw new page.InputError(`"${text.name}" has ${ids.length} ids, and the model takes ${length}.`);
      const fill = (row, filler) => page.texts.padded(row, length, filler, side === "left");
      const row = (data) => ({ data, shape: [1, data.length] });
      return { ids: row(fill(ids, padding)), mask: row(fill(ids.map(() => 1), 0)), segments: row(fill(ids.map(() => 0), 0)) };
    }

    function textsGiven() {
      const texts = areas.map((area) => area.value);
      const kept = pairs && texts[1] === "" ? texts.slice(0, 1) : texts;
      return tokenizer.encode(kept.map(page.texts.toBytes), [1, ...inner.map((size) => size ?? 1)]);
    }

    async function value() {
      const made = tokenizer ? textsGiven() : idsGiven();
      const found = new Map();
      for (const [what, spec] of Object.entries(specs)) {
        const array = made[what];
        if (tokenizer?.words && array.shape.length === 2 && array.shape[1] === 0) {
          throw new page.InputError(`The text "${text.name}" has no words in it.`);
        }
        found.set(spec.name, array);
      }
      const ids = specs.ids;
      if (tokenizer && ids) {
        const array = found.get(ids.name);
        if (tokenizer.words && array.shape.length === 2) array.tokens = tokenizer.tokens(Array.from(array.data));
        if (!tokenizer.words) array.features = tokenizer.features();
      }
      return found;
    }

    async function load(file) {
      const lines = (await file.text()).replace(/^\ufeff/, "").split(/\r?\n/);
      areas[0].value = lines[0];
      changed();
    }

    const help = tokenizer ? null : `whole numbers: the page cannot take texts apart by ${text.tokenizer.kind}`;
    const titles = areas.map((_, i) => (areas.length === 1 ? text.name : pairs && i === 1 ? `${text.name}, a second text (may be left out)` : `${text.name}, ${i + 1}`));
    const element = make("div", {}, ...areas.map((area, i) => field(titles[i], area, help)));
    return { element, value, load, accepts: (file) => Boolean(tokenizer) && /\.txt$/i.test(file.name) };
  }

  page.widgets.text = { make: makeWidget };
})((globalThis.probegen = globalThis.probegen || {}));
