// A row of a table: a number a feature, typed, pasted or out of a file.
(function (page) {
  "use strict";

  const { make } = page.drawing;
  const { TABLE, field, innerAxes, innerSizes, opener, pasteBox, rowChoice, withBatch } = page.widgets;
  const MOST_FIELDS = 64;
  const MOST_NAMED = 8;

  function fits(spec) {
    const axes = innerAxes(spec);
    const isIds = spec.vocabulary !== null || (spec.integer && axes[0] === "time");
    return axes.length === 0 || (axes.length === 1 && axes[0] !== "time" && !isIds && innerSizes(spec)[0] !== null);
  }

  function makeWidget(spec, told, changed) {
    const size = innerSizes(spec)[0] ?? 1;
    const names = page.tables.namesOf(spec, size);
    const fields = size <= MOST_FIELDS ? names.map(() => make("input", { type: "number", step: "any", value: 0, change: edited })) : null;
    const pasted = pasteBox(2, take, told.problem);
    const choice = rowChoice(show);
    let table = null;
    let values = fields ? null : [];
    let wrong = null; // why the last table was not taken: until something else is given, nothing is

    function edited() {
      wrong = null;
      changed();
    }

    function show(row) {
      wrong = null;
      values = table.rows[row];
      if (fields) fields.forEach((one, i) => (one.value = Number.isFinite(values[i]) ? values[i] : ""));
      changed();
    }

    // Takes a table; each row is a sample.
    function take(text) {
      wrong = null;
      if (!text.trim()) {
        if (!fields) values = [];
        return;
      }
      try {
        table = tableOf(text);
      } catch (error) {
        wrong = error;
        throw error;
      }
      choice.offer(table.rows.length);
    }

    function tableOf(text) {
      const { table: read, said } = page.tables.byFeature(page.tables.read(text), spec.features);
      const width = read.rows[0].length;
      if (width !== size) throw new page.InputError(`The table has ${width} columns, and "${spec.name}" takes ${size} numbers a row.`);
      return { ...read, said };
    }

    // The number of a field that shows none: infinity as a table had it, else no value. A number that was
    // cleared is gone.
    const beyondFields = (i) => (Number.isFinite(values?.[i]) ? NaN : (values?.[i] ?? NaN));

    async function value() {
      if (wrong !== null) throw wrong;
      const data = fields ? fields.map((one, i) => (one.value === "" ? beyondFields(i) : Number(one.value))) : values;
      if (!data.length) throw new page.InputError(`Paste a row of ${size} numbers, or open a table.`);
      const sizes = innerAxes(spec).length ? [size] : [];
      const empty = names.filter((_, i) => Number.isNaN(data[i]));
      const notes = empty.length ? [`no value is given (NaN) of ${empty.slice(0, MOST_NAMED).join(", ")}${empty.length > MOST_NAMED ? ", ..." : ""}`] : [];
      return { ...withBatch(spec, data, sizes), names: table?.names ?? null, notes: [...(table?.said ?? []), ...notes] };
    }

    const load = async (file) => take(await file.text());
    const element = make("div", {},
      fields ? make("div", { class: "fields" }, ...fields.map((one, i) => field(names[i], one))) : null,
      field("Paste rows of a table", pasted, "as CSV, with or without a row of names"),
      opener("Open a table", ".csv,.tsv,.txt", load, told.problem), choice.element);
    // Gives the one number of an input that takes no more.
    function set(number) {
      table = wrong = null;
      values = [number];
      if (fields) fields[0].value = Number.isFinite(number) ? number : "";
    }

    return { element, value, load, set };
  }

  // Names of the features of an input.
  page.tables.namesOf = (spec, size) => {
    const told = spec.features;
    if (told?.length === size) return told.map((one) => (one.unit ? `${one.name} [${one.unit}]` : one.name));
    return size === 1 ? [spec.name] : Array.from({ length: size }, (_, i) => `feature ${i}`);
  };
  page.widgets.row = { title: "a row of a table", fits, accepts: (file) => TABLE.test(file.name), make: makeWidget };
})((globalThis.probegen = globalThis.probegen || {}));
