// Elements of the page and what pictures are put together from. Text goes in as text, never as HTML.
(function (page) {
  "use strict";

  const { concatenated, joined, mean, span } = page.arrays;
  const { colour, css, number, painter } = page.scales;
  // The most that an overlay hides of the picture under it.
  const COVER = 0.85;
  const POSITIVE = "var(--for)";
  const NEGATIVE = "var(--against)";
  const UNSIGNED = "var(--size)";
  const SVG = "http://www.w3.org/2000/svg";

  // Makes an element; attributes that are functions are event handlers.
  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // A canvas `[height, width]`; `paint` writes into its pixels: red, green, blue, alpha from 0 to 255.
  function canvas(height, width, paint, label) {
    const made = make("canvas", { role: "img", "aria-label": label, class: "pixels" });
    made.width = width;
    made.height = height;
    made.style.aspectRatio = `${width} / ${height}`;
    const context = made.getContext("2d");
    const image = context.createImageData(width, height);
    image.data.fill(255);
    paint(image.data);
    context.putImageData(image, 0, 0);
    return made;
  }

  function mapCanvas(map, scale, label) {
    const put = painter(scale);
    const paint = (pixels) => {
      for (let i = 0; i < map.data.length; i += 1) put(map.data[i], pixels, 4 * i);
    };
    return canvas(map.shape[0], map.shape[1], paint, label);
  }

  // Makes a picture `[height, width, channel]` of any range displayable: bytes, and what to say.
  function displayable(array) {
    const channels = array.shape[2];
    const notes = [];
    let picture = array;
    if (channels !== 1 && channels !== 3) {
      const grey = joined(array, mean);
      picture = { data: grey.data, shape: [...grey.shape, 1] };
      notes.push(`input drawn as the mean of its ${channels} channels`);
    }
    let [low, high] = span(picture.data) ?? [0, 1];
    if (low >= 0 && high <= 1) [low, high] = [0, 1];
    else if (low >= 0 && high > 16 && high <= 255) [low, high] = [0, 255];
    const [height, width, kept] = picture.shape;
    const factor = 255 / (high - low || 1);
    const data = new Uint8ClampedArray(height * width * 3); // which rounds, and keeps to its ends
    for (let i = 0; i < height * width; i += 1) {
      for (let part = 0; part < 3; part += 1) {
        const value = picture.data[i * kept + (kept === 3 ? part : 0)];
        data[3 * i + part] = Number.isNaN(value) ? 128 : (value - low) * factor;
      }
    }
    return { base: { data, shape: [height, width, 3] }, notes };
  }

  function pictureCanvas(base, label) {
    const paint = (pixels) => {
      for (let from = 0, to = 0; from < base.data.length; from += 3, to += 4) {
        for (let part = 0; part < 3; part += 1) pixels[to + part] = base.data[from + part];
      }
    };
    return canvas(base.shape[0], base.shape[1], paint, label);
  }

  // Blends the map's colours over a grey picture, more where the map is stronger.
  function overlayCanvas(base, map, scale, label) {
    const put = painter(scale);
    const paint = (pixels) => {
      for (let i = 0; i < map.data.length; i += 1) {
        const cover = COVER * Math.sqrt(put(map.data[i], pixels, 4 * i));
        const grey = 0.299 * base.data[3 * i] + 0.587 * base.data[3 * i + 1] + 0.114 * base.data[3 * i + 2];
        for (let part = 4 * i; part < 4 * i + 3; part += 1) pixels[part] = grey * (1 - cover) + pixels[part] * cover;
      }
    };
    return canvas(base.shape[0], base.shape[1], paint, label);
  }

  const panel = (title, element) => make("figure", { class: "panel" }, element, make("figcaption", {}, title));

  // Names beside the colours that stand for them.
  function legend(names, colours) {
    const made = make("ul", { class: "legend" });
    names.forEach((name, i) => {
      const patch = make("i", { "aria-hidden": "true" });
      patch.style.background = colours[i % colours.length];
      made.append(make("li", {}, patch, name));
    });
    return made;
  }

  // The scale of colours: its ends, and what is measured. Arrows say that some values lie beyond.
  function scaleBar(scale, label) {
    const levels = Array.from({ length: 9 }, (_, i) => css(colour(scale, scale.low + ((scale.high - scale.low) * i) / 8)));
    const strip = make("i", { "aria-hidden": "true" });
    strip.style.background = `linear-gradient(90deg, ${levels.join(", ")})`;
    const low = scale.extend === "both" ? "\u2264 " : "";
    const high = scale.extend === "neither" ? "" : "\u2265 ";
    return make("div", { class: "scale" }, low + number(scale.low), strip, high + number(scale.high), make("span", {}, label));
  }

  // Horizontal bars: rows of { name, value, colour, written }; a row is a line of text as well.
  function bars(rows, { low = null, high = null } = {}) {
    const values = rows.map((row) => (Number.isFinite(row.value) ? row.value : 0));
    const start = low ?? Math.min(0, ...values);
    const end = high ?? Math.max(0, ...values);
    const reach = end - start || 1;
    const list = make("ol", { class: "bars" });
    rows.forEach((row, i) => {
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      const filled = make("i");
      filled.style.left = `${(100 * (Math.min(0, values[i]) - start)) / reach}%`;
      filled.style.width = `${(100 * Math.abs(values[i])) / reach}%`;
      filled.style.background = row.colour;
      bar.append(filled);
      const written = row.written ?? number(row.value);
      list.append(make("li", {}, make("span", { class: "name", title: row.name }, row.name), bar, make("span", { class: "value" }, written)));
    });
    return list;
  }

  const bySign = (value, signed) => (signed ? (value >= 0 ? POSITIVE : NEGATIVE) : UNSIGNED);

  // A chart `wide` by `high` whose x goes over the steps: lines and bars of one scale.
  function chart({ lines = [], columns = null, signed = false, label, high = 90, limit = null, colours = null }) {
    const wide = 640;
    const size = (lines[0] ?? columns).length;
    let [low, top] = span(concatenated([...lines, ...(columns ? [columns, [0]] : [])])) ?? [0, 0];
    if (limit !== null) [low, top] = [low < 0 ? -limit : 0, limit];
    if (!(top > low)) [low, top] = [low - 0.5, low + 0.5];
    const x = (i) => ((i + 0.5) * wide) / size;
    const y = (value) => high - 3 - ((value - low) * (high - 6)) / (top - low);
    const drawn = svg("svg", { viewBox: `0 0 ${wide} ${high}`, class: "chart", role: "img", "aria-label": label, preserveAspectRatio: "none" });
    if (columns) {
      columns.forEach((value, i) => {
        if (!Number.isFinite(value) || value === 0) return;
        const [from, to] = [y(Math.max(0, value)), y(Math.min(0, value))];
        const wideOfOne = (0.9 * wide) / size;
        const bar = svg("rect", { x: x(i) - wideOfOne / 2, y: from, width: wideOfOne, height: Math.max(0.5, to - from) });
        bar.style.fill = bySign(value, signed);
        drawn.append(bar);
      });
      drawn.append(svg("line", { x1: 0, x2: wide, y1: y(0), y2: y(0), class: "zero" }));
    }
    lines.forEach((line, place) => {
      let path = "";
      let pen = "M";
      line.forEach((value, i) => {
        if (Number.isFinite(value)) path += `${pen}${x(i).toFixed(2)} ${y(value).toFixed(2)}`;
        pen = Number.isFinite(value) ? "L" : "M";
      });
      const drawnLine = svg("path", { d: path, class: "line" });
      if (colours !== null) drawnLine.style.stroke = colours[place % colours.length];
      drawn.append(drawnLine);
    });
    const ends = make("span", { class: "ends", "aria-hidden": "true" }, make("span", {}, number(top)), make("span", {}, number(low)));
    return make("div", { class: "charted" }, ends, drawn);
  }

  let count = 0;

  // A control with its label before it.
  function labelled(title, control) {
    count += 1;
    control.id ||= `control-${count}`;
    return make("span", { class: "labelled" }, make("label", { for: control.id }, title), control);
  }

  // A choice that keeps what was chosen from one run to the next.
  function choice(view, what, names, chosen) {
    const key = `${view.spec.name}\n${what}`;
    const { choices } = view.run;
    const at = Math.min(choices.get(key) ?? 0, names.length - 1);
    const select = make("select", {
      autocomplete: "off",
      change: () => {
        choices.set(key, select.selectedIndex);
        chosen(select.selectedIndex);
      },
    });
    names.forEach((name, i) => select.append(make("option", { value: i, selected: i === at }, name)));
    return { element: labelled(`${what[0].toUpperCase()}${what.slice(1)}`, select), at };
  }

  page.drawing = {
    NEGATIVE, POSITIVE, UNSIGNED, bars, bySign, canvas, chart, choice, displayable, labelled, legend, make, mapCanvas, overlayCanvas,
    panel, pictureCanvas, scaleBar,
  };
})((globalThis.probegen = globalThis.probegen || {}));
