// onnxruntime-node: `node node.mjs JOB.json ANSWER.json`.
import * as ort from "onnxruntime-node";
import { fromTensor, toTensor, version, work } from "./exchange.mjs";

const sessions = new Map();

await work(`${version("onnxruntime-node")}, node ${process.versions.node}`, async (model, feeds) => {
  if (!sessions.has(model)) {
    const options = { logSeverityLevel: 4, intraOpNumThreads: 1 };
    sessions.set(model, await ort.InferenceSession.create(model, options));
  }
  const given = Object.entries(feeds).map(([name, value]) => [name, toTensor(ort, value)]);
  const found = await sessions.get(model).run(Object.fromEntries(given));
  return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, fromTensor(value)]));
});
