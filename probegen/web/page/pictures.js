// Pictures as probegen.runtime.read.images reads them: values from 0 to 255, resized as Pillow does.
(function (page) {
  "use strict";

  const SUFFIXES = /\.(png|jpe?g|bmp|gif|webp|avif|tiff?|svg)$/i;
  // Pillow computes its filter in whole numbers of so many bits behind the point.
  const BITS = 32 - 8 - 2;

  // Returns the pixels of a picture file, red, green, blue, alpha: { data, width, height }.
  async function opened(file) {
    let image;
    try {
      image = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    } catch {
      throw new page.InputError(`${file.name || "The file"} is no picture that this browser reads. A PNG can always be read.`);
    }
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    image.close();
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  // Returns `[height, width, channel]` of bytes: grey as Pillow weighs colours, colours, or all four.
  function inChannels({ data, width, height }, channels) {
    const made = new Uint8Array(width * height * channels);
    for (let i = 0; i < width * height; i += 1) {
      const at = 4 * i;
      if (channels === 1) made[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
      else for (let channel = 0; channel < channels; channel += 1) made[i * channels + channel] = data[at + channel];
    }
    return { data: made, shape: [height, width, channels] };
  }

  const isTransparent = ({ data }) => {
    for (let i = 3; i < data.length; i += 4) if (data[i] < 255) return true;
    return false;
  };

  // The weights of Pillow's bilinear filter: for each new line, the first old one and whole numbers.
  function filter(old, length) {
    const scale = old / length;
    const reach = Math.max(scale, 1);
    const lines = [];
    for (let to = 0; to < length; to += 1) {
      const centre = (to + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - reach + 0.5));
      const last = Math.min(old, Math.trunc(centre + reach + 0.5));
      const weights = [];
      for (let i = first; i < last; i += 1) weights.push(Math.max(0, 1 - Math.abs((i - centre + 0.5) / reach)));
      const whole = weights.reduce((total, weight) => total + weight, 0);
      lines.push([first, weights.map((weight) => Math.trunc(0.5 + (weight / whole) * 2 ** BITS))]);
    }
    return lines;
  }

  function filteredAlong(array, axis, length) {
    const [height, width, channels] = array.shape;
    const old = array.shape[axis];
    if (old === length) return array;
    const shape = array.shape.slice();
    shape[axis] = length;
    const data = new Uint8Array(shape[0] * shape[1] * channels);
    const lines = filter(old, length);
    const step = axis === 0 ? width * channels : channels;
    const others = axis === 0 ? width : height;
    for (let other = 0; other < others; other += 1) {
      const from = axis === 0 ? other * channels : other * width * channels;
      for (let to = 0; to < length; to += 1) {
        const [first, weights] = lines[to];
        const at = axis === 0 ? (to * width + other) * channels : (other * length + to) * channels;
        for (let channel = 0; channel < channels; channel += 1) {
          let total = 2 ** (BITS - 1);
          for (let i = 0; i < weights.length; i += 1) total += array.data[from + (first + i) * step + channel] * weights[i];
          data[at + channel] = Math.min(255, Math.max(0, Math.floor(total / 2 ** BITS)));
        }
      }
    }
    return { data, shape };
  }

  // Returns `[height, width, channel]` of bytes in another size: across first, then down, as Pillow does.
  const resized = (array, [height, width]) => filteredAlong(filteredAlong(array, 1, width), 0, height);

  page.pictures = { SUFFIXES, inChannels, isTransparent, opened, resized };
})((globalThis.probegen = globalThis.probegen || {}));
