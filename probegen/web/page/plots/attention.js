// Attention weights: a map of queries and keys for a head, and what one query looks at.
(function (page) {
  "use strict";

  const { ordered, taken } = page.arrays;
  const { LIGHT } = page.scales;
  const { choice, make, mapCanvas, scaleBar } = page.drawing;

  const DOWN = ["query", ...page.arrays.SEQUENCE, "layer", "head"];

  // The most names that stand at the rim of a map.
  const MOST_NAMES = 40;

  // A map with the names of its rows and columns, where there is room for them; one row is marked.
  function framed(map, rows, columns, marked) {
    const names = (all, side) =>
      make("div", { class: side, "aria-hidden": "true" }, ...(all.length > MOST_NAMES ? [] : all.map((name, i) => make("span", { class: side === "rows" && i === marked ? "marked" : null, title: name }, name))));
    return make("div", { class: "framed" }, names(rows, "rows"), map, names(columns, "columns"));
  }

  // Which axis goes down: the queries, or what there is in their place.
  const downOf = (view) => DOWN.find((axis) => view.axes.includes(axis));

  function fits(view) {
    const down = downOf(view);
    const rest = view.axes.filter((axis) => axis !== down && axis !== "key" && axis !== "head");
    return view.spec.draw === "attention" && view.axes.includes("key") && down !== undefined && rest.length === 0;
  }

  const hasIdentity = (view, [, queries, keys]) => Boolean(view.spec.detail.holds_identity) && queries === keys;

  // Returns `[head, query, key]`, one head where there is none; without the identity that it may begin with.
  function mapsOf(view) {
    const down = downOf(view);
    const hasHeads = down !== "head" && view.axes.includes("head");
    const found = ordered(view.array, view.axes, [...(hasHeads ? ["head"] : []), down, "key"]);
    const shape = hasHeads ? found.shape : [1, ...found.shape];
    const keys = shape[2];
    if (!hasIdentity(view, shape)) return { data: found.data, shape };
    return { data: found.data.map((one, i) => one - (Math.floor(i / keys) % keys === i % keys ? 1 : 0)), shape };
  }

  function draw(view, parent) {
    const down = downOf(view);
    const maps = mapsOf(view);
    const [heads, , keys] = maps.shape;
    const notes = hasIdentity(view, maps.shape) ? ["without the identity that it begins with"] : [];
    const columns = view.tokens(keys);
    const rows = down === "query" ? view.tokens(maps.shape[1]) : null;
    const wide = Math.max(1, columns?.length ?? keys);
    const high = Math.max(1, rows?.length ?? maps.shape[1]);
    const largest = (values) => values.reduce((most, one) => (Number.isFinite(one) ? Math.max(most, one) : most), 0);
    const top = Math.max(largest(maps.data), ...view.family.filter((one) => one !== view).map((one) => largest(mapsOf(one).data)));
    const scale = { colours: LIGHT, low: 0, high: top > 0 ? top : 1, extend: "neither" };
    const keyNames = columns ?? Array.from({ length: wide }, (_, i) => String(i));
    const rowNames = rows ?? page.views.namesAlong(view, down, high);

    // The map of a head, -1 the mean of all, without padding at its ends.
    function mapOf(head) {
      const data = new Float64Array(high * wide);
      const chosen = head < 0 ? Array.from({ length: heads }, (_, i) => i) : [head];
      for (const one of chosen) {
        const map = taken(maps, 0, one);
        for (let y = 0; y < high; y += 1) {
          for (let x = 0; x < wide; x += 1) data[y * wide + x] += map.data[y * keys + x] / chosen.length;
        }
      }
      return { data, shape: [high, wide] };
    }

    const names = heads > 1 ? [`mean of ${heads} heads`, ...Array.from({ length: heads }, (_, i) => `head ${i}`)] : ["all"];
    const controls = make("div", { class: "row" });
    const place = make("div");
    let head = 0;
    let query = 0;
    const redraw = () => {
      const map = mapOf(heads > 1 ? head - 1 : 0);
      const drawn = mapCanvas(map, scale, `${view.quantity}: ${rowNames.length} rows of ${down} down, ${keyNames.length} keys across`);
      const row = map.data.subarray(query * wide, (query + 1) * wide);
      const text = make("div", { class: "text", dir: "auto" });
      keyNames.forEach((token, i) => text.append(page.tokenBoxes.box(token, row[i], scale, view.quantity), "\u200b"));
      place.replaceChildren(
        framed(drawn, rows ? rowNames.map(page.texts.written) : rowNames, keyNames.map(page.texts.written), query),
        make("p", { class: "muted" }, `${down} down, key across`),
        make("p", {}, `${rowNames[query]} looks at:`), text, scaleBar(scale, view.quantity),
      );
    };
    if (heads > 1) {
      const chosen = choice(view, "head", names, (at) => {
        head = at;
        redraw();
      });
      head = chosen.at;
      controls.append(chosen.element);
    }
    const written = rowNames.map((name, i) => (rows ? `${i}: ${page.texts.written(name)}` : name));
    const asked = choice(view, down, written, (at) => {
      query = at;
      redraw();
    });
    query = asked.at;
    controls.append(asked.element);
    parent.append(controls, place);
    redraw();
    return notes;
  }

  page.attention = { draw, fits };
})((globalThis.probegen = globalThis.probegen || {}));
