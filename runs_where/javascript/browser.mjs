// onnxruntime-web (WebAssembly) in headless Chromium: `node browser.mjs JOB.json ANSWER.json`.
// The page and onnxruntime come from a server on this machine's loopback. CHROMIUM says which
// browser; by default the one that Debian's package installs.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { version, work } from "./exchange.mjs";

const FOLDER = path.join(path.dirname(fileURLToPath(import.meta.url)), "node_modules/onnxruntime-web/dist");
const KINDS = { ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm" };
const PAGE = "<!doctype html><meta charset=utf-8><title>probegen</title>";

const server = http.createServer((request, response) => {
  if (request.url === "/") {
    response.setHeader("Content-Type", "text/html");
    return response.end(PAGE);
  }
  const file = path.join(FOLDER, path.basename(request.url));
  if (!fs.existsSync(file)) {
    response.statusCode = 404;
    return response.end();
  }
  response.setHeader("Content-Type", KINDS[path.extname(file)] ?? "application/octet-stream");
  return response.end(fs.readFileSync(file));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${server.address().port}/`);

// Runs in the page: opens each model once.
async function inPage({ name, model, beside, feeds }) {
  const ort = await import("/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/";
  ort.env.logLevel = "fatal";
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const text = (array) => {
    const view = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let made = "";
    for (const byte of view) made += String.fromCharCode(byte);
    return btoa(made);
  };
  const arrays = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array, bool: Uint8Array };
  window.sessions ??= {};
  window.sessions[name] ??= await ort.InferenceSession.create(bytes(model), {
    executionProviders: ["wasm"],
    externalData: beside.map((file) => ({ path: file.path, data: bytes(file.data) })),
  });
  const given = {};
  for (const [key, value] of Object.entries(feeds)) {
    given[key] = new ort.Tensor(value.dtype, new arrays[value.dtype](bytes(value.data).buffer), value.shape);
  }
  const found = await window.sessions[name].run(given);
  const made = {};
  for (const [key, value] of Object.entries(found)) {
    made[key] = { dtype: value.type, shape: [...value.dims], data: text(value.data) };
  }
  return made;
}

await work(`${version("onnxruntime-web")}, Chromium ${browser.version()}`, async (model, feeds) => {
  const content = fs.readFileSync(model);
  const beside = fs
    .readdirSync(path.dirname(model))
    .filter((file) => file.endsWith(".data") && content.includes(file))
    .map((file) => ({ path: file, data: fs.readFileSync(path.join(path.dirname(model), file), "base64") }));
  return page.evaluate(inPage, { name: model, model: content.toString("base64"), beside, feeds });
});
await browser.close();
server.close();
