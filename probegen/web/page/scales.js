// How numbers become colours and words, as probegen.runtime.plot.style does it.
(function (page) {
  "use strict";

  const { floats, quantile, span } = page.arrays;
  const DIVERGING = "RdBu_r";
  const MAGNITUDE = "viridis";
  const HEAT = "inferno";
  const LIGHT = "Blues";
  const WARM = "YlOrBr";
  const MISSING = [0xc9, 0xc4, 0xb8];
  // From so many numbers on, a few that stand out go beyond the ends of the scale.
  const ENOUGH_TO_CLIP = 256;

  let tables = {};

  // Takes the colours of each map: six hexadecimal digits a level.
  function setColours(told) {
    tables = Object.fromEntries(
      Object.entries(told).map(([name, text]) => [
        name,
        Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16)),
      ]),
    );
  }

  function limit(magnitudes, clip) {
    const top = magnitudes.reduce((most, value) => Math.max(most, value), 0);
    if (top <= 0) return [1, false];
    if (clip && magnitudes.length >= ENOUGH_TO_CLIP) {
      const usual = quantile(magnitudes, 0.995);
      if (usual > 0 && usual < 0.67 * top) return [usual, true];
    }
    return [top, false];
  }

  const made = (colours, low, high, extend = "neither") => ({ colours, low, high, extend });

  // Chooses the scale for values; `signed` null lets them decide.
  function scaleOf(values, { signed = null, colours = MAGNITUDE, clip = true } = {}) {
    const found = span(values);
    if (found === null) return made(colours, 0, 1);
    const finite = floats(values).filter(Number.isFinite);
    let [low] = found;
    const [, top] = found;
    if (signed === null) signed = low < -0.1 * Math.max(top, 0) && low < 0;
    if (signed) {
      const [end, extend] = limit(finite.map(Math.abs), clip);
      return made(DIVERGING, -end, end, extend ? "both" : "neither");
    }
    if (low >= 0 && low < 0.5 * top) low = 0;
    if (low < 0 || top <= 0) return made(colours, low, top > low ? top : low + 1);
    const [high, extend] = limit(finite, clip);
    const end = high > low ? Math.max(high, low + 1e-12 * Math.abs(low)) : low + 1;
    return made(colours, low, end, extend ? "max" : "neither");
  }

  // Chooses the scale for attributions, which starts at zero.
  function attributionScale(values, { signed, colours = MAGNITUDE, clip = true, hasZero = true }) {
    const found = span(values);
    const oneSided = found !== null && (found[0] >= 0 || found[1] <= 0);
    if (!hasZero && oneSided) return scaleOf(values, { signed: false, colours, clip });
    const scale = scaleOf(values, { signed, colours, clip });
    return scale.low <= 0 ? scale : { ...scale, low: 0 };
  }

  const isSigned = (scale) => scale.colours === DIVERGING;

  // Returns the colour of a value, [red, green, blue] from 0 to 255.
  function colour(scale, value) {
    if (!Number.isFinite(value)) return MISSING;
    const table = tables[scale.colours];
    const levels = table.length / 3;
    const share = (value - scale.low) / (scale.high - scale.low);
    const level = Math.min(levels - 1, Math.max(0, Math.floor(share * levels)));
    return [table[3 * level], table[3 * level + 1], table[3 * level + 2]];
  }

  // Returns what writes the colour of a value into the pixels of a canvas, and how strong it is, 0 to 1.
  function painter(scale) {
    const table = tables[scale.colours];
    const levels = table.length / 3;
    const reach = scale.high - scale.low;
    const start = isSigned(scale) ? 0 : scale.low;
    const whole = scale.high - start;
    return (value, pixels, at) => {
      if (!Number.isFinite(value)) {
        pixels.set(MISSING, at);
        return Number.isNaN(value) ? 0 : 1;
      }
      const level = 3 * Math.min(levels - 1, Math.max(0, Math.floor(((value - scale.low) / reach) * levels)));
      pixels[at] = table[level];
      pixels[at + 1] = table[level + 1];
      pixels[at + 2] = table[level + 2];
      return Math.min(1, Math.abs(value - start) / whole);
    };
  }

  const css = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;

  // Returns the colour of text that reads best on a ground, by relative luminance (WCAG 2.1, 1.4.3).
  function inkOn(rgb) {
    const [red, green, blue] = rgb.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.3 ? "#1a1f24" : "white";
  }

  // Writes a number in three digits as Python's ".3g" does, with a true minus sign.
  function number(value) {
    if (Number.isNaN(value)) return "nan";
    if (!Number.isFinite(value)) return value > 0 ? "inf" : "\u2212inf";
    const [digits, power] = value.toExponential(2).split("e");
    const exponent = Number(power);
    const text = value !== 0 && (exponent < -4 || exponent >= 3)
      ? `${Number(digits)}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`
      : String(Number(value.toPrecision(3)));
    return text.replace(/-/g, "\u2212");
  }

  const probability = (value) => (value > 0 && value < 0.0005 ? "< 0.001" : value.toFixed(3));

  page.scales = {
    DIVERGING, HEAT, LIGHT, MAGNITUDE, WARM, attributionScale, colour, css, inkOn, number, painter, probability, scaleOf,
    setColours,
  };
})((globalThis.probegen = globalThis.probegen || {}));
