// Bytes of the files that belong to the page: within it, from a server, or from the disk.
(function (page) {
  "use strict";

  const handed = new Map();

  // Called by the scripts in local/: a file as base64 in parts, packed with gzip or not.
  page.given = (name, packed, parts) => handed.set(name, { packed, parts });

  function decoded(parts) {
    const texts = parts.map((part) => atob(part));
    const bytes = new Uint8Array(texts.reduce((size, text) => size + text.length, 0));
    let at = 0;
    for (const text of texts) {
      for (let i = 0; i < text.length; i += 1) bytes[at + i] = text.charCodeAt(i);
      at += text.length;
    }
    return bytes;
  }

  async function unpacked(bytes, format) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function within(element) {
    // Whole parts of base64 without padding between them, of a size that atob takes.
    const text = element.textContent;
    const parts = [];
    for (let at = 0; at < text.length; at += 2 ** 20) parts.push(text.slice(at, at + 2 ** 20));
    const bytes = decoded(parts);
    return "gzip" in element.dataset ? unpacked(bytes, "gzip") : bytes;
  }

  function fromDisk(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `local/${encodeURIComponent(name)}.js`;
      script.onerror = () =>
        reject(new page.InputError(
          `The browser does not read ${script.src}. Put the folder behind a web server, for instance ` +
            "python -m http.server, and open it there.",
        ));
      script.onload = () => {
        const { packed, parts } = handed.get(name);
        handed.delete(name);
        script.remove();
        const bytes = decoded(parts);
        resolve(packed ? unpacked(bytes, "gzip") : bytes);
      };
      document.head.append(script);
    });
  }

  async function fromServer(path, progress) {
    const reply = await fetch(path);
    if (!reply.ok) throw new page.InputError(`The server has no ${path}: it answers ${reply.status}.`);
    const size = Number(reply.headers.get("Content-Length")) || 0;
    const parts = [];
    let at = 0;
    const reader = reply.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      at += value.length;
      progress(path, at, size);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }

  // Returns the bytes of a file. `folder` is where a server has it; names are unique without.
  async function bytesOf(name, folder = "", progress = () => {}) {
    const element = [...document.querySelectorAll("script[data-file]")].find((one) => one.dataset.file === name);
    if (element) return within(element);
    if (location.protocol === "file:") return fromDisk(name);
    return fromServer(folder + encodeURIComponent(name), progress);
  }

  page.files = { bytesOf, unpacked };
})((globalThis.probegen = globalThis.probegen || {}));
