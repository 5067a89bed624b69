// A picture: opened, dropped, or drawn with the pointer or the keyboard.
(function (page) {
  "use strict";

  const { CHANNEL, transpose } = page.arrays;
  const { make } = page.drawing;
  const { field, innerAxes, opener, withBatch } = page.widgets;
  const PAD = 280;
  const MOST_PIXELS_A_SIDE = 512;
  const STEP = 4;

  // Returns where height, width and channel stand among the inner axes; null where these are no pictures.
  function placesOf(spec) {
    const axes = innerAxes(spec);
    const [height, width] = ["height", "width"].map((axis) => axes.indexOf(axis));
    const channel = axes.findIndex((axis) => CHANNEL.includes(axis));
    if (height >= 0 && width >= 0) return axes.length === (channel < 0 ? 2 : 3) ? { height, width, channel } : null;
    const sizes = page.widgets.innerSizes(spec);
    // One value a pixel: digits are often fed so.
    const grey = axes.length === 2 && sizes.every((n) => n !== null && n > 1) && !spec.integer;
    return grey && page.inputs.isFloat(spec) ? { height: 0, width: 1, channel: -1, isGuess: true } : null;
  }

  function channelsOf(spec, places) {
    return places.channel < 0 ? 1 : (page.widgets.innerSizes(spec)[places.channel] ?? 3);
  }

  function fits(spec) {
    const places = placesOf(spec);
    return places !== null && [1, 3, 4].includes(channelsOf(spec, places));
  }

  // Where a guess of ours says that it is a picture, a table comes first.
  const isGuess = (spec) => Boolean(placesOf(spec)?.isGuess);

  function makeWidget(spec, told, changed) {
    const places = placesOf(spec);
    const sizes = page.widgets.innerSizes(spec);
    const [height, width] = [sizes[places.height], sizes[places.width]];
    const isFixed = height !== null && width !== null;
    const scaled = page.inputs.isFloat(spec) && !spec.integer && spec.preprocessing === null;
    const wide = isFixed ? width * Math.max(1, Math.round(PAD / Math.max(height, width))) : PAD;
    const high = isFixed ? height * Math.max(1, Math.round(PAD / Math.max(height, width))) : PAD;

    let file = null; // { data, width, height, name } of a picture that was opened
    let isEmpty = true;

    const pad = make("canvas", {
      class: "pad", tabindex: 0, role: "img",
      "aria-label": "Drawing pad. Draw with the pointer; or with the arrow keys, after Space puts the pen down. Space lifts it, Delete clears.",
    });
    pad.width = wide;
    pad.height = high;
    const context = pad.getContext("2d", { willReadFrequently: true });
    const paper = make("select", { autocomplete: "off", change: () => clear() },
      make("option", { value: "dark" }, "light pen, dark paper"), make("option", { value: "light" }, "dark pen, light paper"));
    const isDark = () => paper.value === "dark";

    function clear() {
      file = null;
      isEmpty = true;
      context.fillStyle = isDark() ? "#000" : "#fff";
      context.fillRect(0, 0, wide, high);
      name.textContent = "";
    }

    function stroke(from, to) {
      if (file !== null) clear();
      isEmpty = false;
      context.strokeStyle = isDark() ? "#fff" : "#000";
      context.lineWidth = 0.085 * Math.min(wide, high);
      context.lineCap = "round";
      context.lineJoin = "round";
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...to);
      context.stroke();
    }

    let last = null;
    const at = (event) => {
      const box = pad.getBoundingClientRect();
      return [((event.clientX - box.left) * wide) / box.width, ((event.clientY - box.top) * high) / box.height];
    };
    pad.addEventListener("pointerdown", (event) => {
      pad.setPointerCapture(event.pointerId);
      last = at(event);
      stroke(last, last);
    });
    pad.addEventListener("pointermove", (event) => {
      if (last === null) return;
      const here = at(event);
      stroke(last, here);
      last = here;
    });
    const lift = () => {
      if (last !== null) changed();
      last = null;
    };
    pad.addEventListener("pointerup", lift);
    pad.addEventListener("pointercancel", lift);

    // By keyboard: a pen that arrow keys move, and Space puts down or lifts.
    const pen = { x: wide / 2, y: high / 2, down: false };
    const cursor = make("span", { class: "pen", "aria-hidden": "true" });
    const showPen = () => {
      cursor.style.left = `${(100 * pen.x) / wide}%`;
      cursor.style.top = `${(100 * pen.y) / high}%`;
      cursor.classList.toggle("down", pen.down);
    };
    pad.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === " ") {
        pen.down = !pen.down;
        if (pen.down) stroke([pen.x, pen.y], [pen.x, pen.y]);
        else changed();
      } else if (event.key === "Delete" || event.key === "Backspace") {
        clear();
      } else if (moves[event.key]) {
        const size = (event.shiftKey ? 5 : 1) * STEP;
        const [x, y] = moves[event.key];
        const before = [pen.x, pen.y];
        pen.x = Math.min(wide, Math.max(0, pen.x + x * size));
        pen.y = Math.min(high, Math.max(0, pen.y + y * size));
        if (pen.down) stroke(before, [pen.x, pen.y]);
      } else {
        return;
      }
      event.preventDefault();
      showPen();
    });
    showPen();

    const name = make("p", { class: "muted" });
    const scale = make("input", { type: "number", step: "any", value: told.scale ?? 1, change: changed });
    const longest = make("input", { type: "number", min: 1, value: MOST_PIXELS_A_SIDE, change: changed });

    function show(picture) {
      const whole = document.createElement("canvas");
      whole.width = picture.width;
      whole.height = picture.height;
      whole.getContext("2d").putImageData(picture, 0, 0);
      context.clearRect(0, 0, wide, high);
      // As the model sees it where it is brought to a size, else in its own aspect.
      const factor = Math.min(wide / picture.width, high / picture.height);
      const [across, down] = isFixed ? [wide, high] : [picture.width * factor, picture.height * factor];
      context.drawImage(whole, (wide - across) / 2, (high - down) / 2, across, down);
    }

    async function load(given) {
      const picture = await page.pictures.opened(given);
      show(picture);
      file = { picture, name: given.name ?? "the picture" };
      isEmpty = false;
      name.textContent = `${file.name}, ${picture.height}\u00d7${picture.width}`;
      changed();
    }

    async function value() {
      if (isEmpty) throw new page.InputError("Draw something, or open a picture.");
      const notes = [];
      const picture = file === null ? context.getImageData(0, 0, wide, high) : file.picture;
      const channels = channelsOf(spec, places);
      if (channels !== 4 && page.pictures.isTransparent(picture)) notes.push(`${file.name} has transparent pixels; the browser does not tell the colours beneath them, and they are black`);
      let pixels = page.pictures.inChannels(picture, channels);
      let wanted = isFixed ? [height, width] : [picture.height, picture.width];
      if (!isFixed && spec.preprocessing === null) {
        const factor = Math.min(1, Number(longest.value) / Math.max(...wanted));
        wanted = wanted.map((n, i) => [height, width][i] ?? Math.max(1, Math.round(n * factor)));
      }
      if (pixels.shape[0] !== wanted[0] || pixels.shape[1] !== wanted[1]) {
        if (file !== null) notes.push(`resized ${pixels.shape[0]}\u00d7${pixels.shape[1]} to ${wanted.join("\u00d7")}`);
        pixels = page.pictures.resized(pixels, wanted);
      }
      const factor = scaled ? Math.fround(Number(scale.value)) : 1;
      if (!Number.isFinite(factor)) throw new page.InputError("Pixels are multiplied by a number.");
      // Products of floats of 32 bits, as the runtime computes them.
      const numbers = scaled ? { data: Float32Array.from(pixels.data, (one) => one * factor), shape: pixels.shape } : pixels;
      const order = [];
      order[places.height] = 0;
      order[places.width] = 1;
      if (places.channel >= 0) order[places.channel] = 2;
      const array = order.length === 3 ? transpose(numbers, order) : { data: numbers.data, shape: numbers.shape.slice(0, 2) };
      return { ...withBatch(spec, array.data, array.shape), notes, isPicture: true };
    }

    clear();
    const pads = make("div", { class: "padded" }, pad, cursor);
    const controls = [
      opener("Open a picture, or drop one anywhere", "image/*", load, told.problem),
      name, pads,
      make("div", { class: "row" }, field("Pen", paper), make("button", { type: "button", click: () => clear() }, "Clear")),
    ];
    if (scaled) {
      const help = "0.00392 (1/255) makes values of 0 to 1";
      controls.push(field("Pixel values of 0 to 255 times", scale, help));
    }
    if (!isFixed && spec.preprocessing === null) controls.push(field("Longest side at most", longest, "larger pictures are made smaller"));
    return { element: make("div", {}, ...controls), value, load };
  }

  page.widgets.picture = { title: "a picture", fits, isGuess, accepts: (file) => file.type.startsWith("image/") || page.pictures.SUFFIXES.test(file.name), make: makeWidget };
})((globalThis.probegen = globalThis.probegen || {}));
