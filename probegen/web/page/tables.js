// Tables of numbers by the rules of probegen.runtime.read.tables: none is guessed from what looks likely.
(function (page) {
  "use strict";

  const { fail } = page;
  const DELIMITERS = ["\t", ";", ",", "|"];
  const NUMBER = /^(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity))$/i;
  const DECIMAL_COMMA = /^[+-]?\d+,\d+(?:e[+-]?\d+)?$/i;
  const DATE = /^\d{4}-\d{2}(?:-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)?)?Z?$/;
  const BOOLS = { true: 1, false: 0 };

  // Returns the cells of each line; quotes are those of CSV. Cells are stripped of blanks around them.
  function cellsOf(text, delimiter) {
    const rows = [];
    let row = [];
    let cell = "";
    let quoted = false;
    let line = 1;
    const endCell = () => {
      row.push(cell.trim());
      cell = "";
    };
    const endRow = () => {
      endCell();
      if (row.some((one) => one !== "") || row.length > 1) rows.push([line, row]);
      row = [];
    };
    for (let at = 0; at < text.length; at += 1) {
      const sign = text[at];
      if (sign === "\n") line += 1;
      if (quoted) {
        if (sign === '"' && text[at + 1] === '"') {
          cell += '"';
          at += 1;
        } else if (sign === '"') {
          quoted = false;
        } else {
          cell += sign;
        }
      } else if (sign === '"' && cell.trim() === "") {
        quoted = true;
        cell = "";
      } else if (sign === delimiter) {
        endCell();
      } else if (sign === "\n") {
        line -= 1;
        endRow();
        line += 1;
      } else {
        cell += sign;
      }
    }
    if (quoted) fail(`The quotes that are open in line ${line} have no end.`);
    if (cell !== "" || row.length) endRow();
    while (rows.length && rows[rows.length - 1][1].every((one) => one === "")) rows.pop();
    return rows;
  }

  function divided(text) {
    const plain = text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n");
    const lines = plain.split("\n");
    const first = lines.find((one) => one.trim() !== "");
    if (first === undefined) return [];
    const tried = DELIMITERS.filter((delimiter) => first.includes(delimiter)).map((one) => cellsOf(plain, one));
    if (!tried.length) {
      const rows = lines.map((one, i) => [i + 1, one.trim()]).filter(([, one]) => one !== "");
      const cut = rows.map(([number, one]) => [number, one.split(/\s+/)]);
      if (cut.slice(1).every(([, cells]) => cells.length === 1)) return rows.map(([number, one]) => [number, [one]]);
      tried.push(cut);
    }
    const even = tried.find((rows) => new Set(rows.map(([, cells]) => cells.length)).size === 1 && rows[0][1].length > 1);
    if (even) return even;
    const rows = tried.reduce((best, one) => ((one[0]?.[1].length ?? 0) > (best[0]?.[1].length ?? 0) ? one : best));
    const size = rows[0][1].length;
    const odd = rows.find(([, cells]) => cells.length !== size);
    if (odd) {
      fail(`Line ${odd[0]} has ${odd[1].length} cells, and the first line has ${size}.${commaHint(...odd[1])}`);
    }
    return rows;
  }

  const commaHint = (...cells) =>
    cells.some((cell) => DECIMAL_COMMA.test(cell)) ? " Decimal commas are not read: write 1.5 for 1,5." : "";

  const isValue = (cell) => NUMBER.test(cell) || cell.toLowerCase() in BOOLS || DECIMAL_COMMA.test(cell);

  function value(cell) {
    const plain = cell.toLowerCase();
    if (plain in BOOLS) return BOOLS[plain];
    if (plain.includes("nan")) return NaN;
    if (plain.includes("inf")) return plain.startsWith("-") ? -Infinity : Infinity;
    return Number(plain);
  }

  // Reads a table: { rows: numbers by row, names: of the columns or null, time: what stands at the steps }.
  // `series` looks for a column of dates beside the numbers.
  function read(text, { series = false } = {}) {
    let rows = divided(text);
    if (!rows.length) fail("The table is empty.");
    const [number, ...rest] = rows[0];
    let first = rest[0];
    first = [first[0].replace(/^[# ]+/, ""), ...first.slice(1)];
    const numeric = first.map((cell) => isValue(cell) || DATE.test(cell));
    if (numeric.some(Boolean) && !numeric.every(Boolean)) {
      const column = numeric.indexOf(false);
      fail(
        `Line ${number}, column ${column + 1}: "${first[column]}" is no number, and ` +
          `"${first[numeric.indexOf(true)]}" beside it is one, so the row is neither names nor data.` +
          commaHint(first[column]),
      );
    }
    let names = numeric.some(Boolean) ? null : first;
    if (names) rows = rows.slice(1);
    if (!rows.length) fail("The table has a row of names, and no row of numbers follows it.");
    let time = null;
    if (series) {
      const columns = rows[0][1].map((_, i) => i).filter((i) => rows.every(([, cells]) => DATE.test(cells[i])));
      if (columns.length > 1) fail("The table has several columns of dates; leave one of them.");
      if (columns.length === 1 && rows[0][1].length > 1) {
        const without = (cells) => cells.filter((_, i) => i !== columns[0]);
        time = rows.map(([, cells]) => cells[columns[0]]);
        rows = rows.map(([line, cells]) => [line, without(cells)]);
        names = names && without(names);
      }
    }
    const numbers = rows.map(([line, cells]) =>
      cells.map((cell, column) => {
        if (!NUMBER.test(cell) && !(cell.toLowerCase() in BOOLS)) {
          const what = cell ? `"${cell.slice(0, 40)}" is no number` : "the cell is empty (write nan for no value)";
          fail(`Line ${line}, column ${column + 1}: ${what}.${commaHint(cell)}`);
        }
        return value(cell);
      }),
    );
    return { rows: numbers, names, time };
  }

  const bare = (name) => name.replace(/^(.*\S)\s+\[[^[\]]+\]$/, "$1");

  // Returns a table with its columns in the order of the features that the artefact names, and what to say.
  function byFeature(table, features) {
    if (!table.names || !features) return { table, said: [] };
    const known = features.map((one) => one.name);
    const called = table.names.map(bare);
    const sorted = (names) => JSON.stringify([...names].sort());
    if (JSON.stringify(called) === JSON.stringify(known)) return { table, said: [] };
    if (sorted(called) === sorted(known)) {
      const order = known.map((name) => called.indexOf(name));
      const rows = table.rows.map((row) => order.map((i) => row[i]));
      return { table: { ...table, rows, names: null }, said: ["The columns were brought into the order of the features."] };
    }
    const said =
      `The columns are called ${called.slice(0, 8).join(", ")}, and the features ${known.slice(0, 8).join(", ")}: ` +
      "they are taken in the order in which they stand.";
    return { table, said: [said] };
  }

  page.tables = { byFeature, read };
})((globalThis.probegen = globalThis.probegen || {}));
