// A series: a table with a time step a row.
(function (page) {
  "use strict";

  const { CHANNEL, SEQUENCE } = page.arrays;
  const { chart, make } = page.drawing;
  const { TABLE, field, innerAxes, innerSizes, opener, pasteBox, withBatch } = page.widgets;

  // Where time and features stand among the inner axes.
  function placesOf(spec) {
    const axes = innerAxes(spec);
    return { time: axes.findIndex((axis) => SEQUENCE.includes(axis)), feature: axes.findIndex((axis) => CHANNEL.includes(axis)), count: axes.length };
  }

  function fits(spec) {
    const { time, feature, count } = placesOf(spec);
    const whole = spec.integer || spec.vocabulary !== null || !page.inputs.isFloat(spec);
    return !whole && time >= 0 && count === (feature < 0 ? 1 : 2);
  }

  function makeWidget(spec, told, changed) {
    const { time, feature } = placesOf(spec);
    const sizes = innerSizes(spec);
    const preview = make("div");
    let table = null;
    const area = pasteBox(6, take, told.problem);

    function take(text) {
      table = null;
      preview.replaceChildren();
      if (!text.trim()) return;
      const read = page.tables.read(text, { series: true });
      const { table: found, said } = page.tables.byFeature(read, spec.features);
      table = { ...found, said };
      const columns = table.rows[0].map((_, i) => table.rows.map((row) => row[i]));
      if (columns.length <= 6 && table.rows.length > 1) preview.append(chart({ lines: columns, label: "the series" }));
      changed();
    }

    async function value() {
      if (table === null) throw new page.InputError(`Paste the steps of "${spec.name}" as rows of a table, or open one.`);
      let { rows } = table;
      // A series of one number a step may stand in one row.
      if (feature < 0 && rows.length === 1) rows = rows[0].map((one) => [one]);
      const width = rows[0].length;
      const wanted = feature < 0 ? 1 : sizes[feature];
      if (wanted !== null && width !== wanted) throw new page.InputError(`The table has ${width} columns, and "${spec.name}" takes ${wanted} numbers a step.`);
      const flat = { data: rows.flat(), shape: [rows.length, width] };
      const sized = feature < 0 ? [rows.length] : time < feature ? [rows.length, width] : [width, rows.length];
      const data = feature >= 0 && time > feature ? page.arrays.transpose({ data: Float64Array.from(flat.data), shape: flat.shape }, [1, 0]).data : flat.data;
      return { ...withBatch(spec, data, sized), time: table.time, names: table.names, notes: table.said };
    }

    async function load(file) {
      area.value = await file.text();
      take(area.value);
    }

    const steps = time >= 0 ? sizes[time] : null;
    const element = make("div", {},
      field("Paste the series", area, `a time step a row${steps === null ? "" : `, ${steps} of them`}; a column of dates may stand beside`),
      opener("Open a table", ".csv,.tsv,.txt", load, told.problem), preview);
    return { element, value, load };
  }

  page.widgets.series = { title: "a series", fits, accepts: (file) => TABLE.test(file.name), make: makeWidget };
})((globalThis.probegen = globalThis.probegen || {}));
