// What is said between the program and its workers; see runs_where/exchange.py.
import fs from "node:fs";

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};

// A tensor of the exchange as onnxruntime takes it; `ort` is the package that makes it.
export function toTensor(ort, given) {
  const bytes = Uint8Array.from(Buffer.from(given.data, "base64"));
  const array = new ARRAYS[given.dtype](bytes.buffer, 0, bytes.length / ARRAYS[given.dtype].BYTES_PER_ELEMENT);
  return new ort.Tensor(given.dtype, array, given.shape);
}

export function fromTensor(tensor) {
  const { data } = tensor;
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { dtype: tensor.type, shape: [...tensor.dims], data: bytes.toString("base64") };
}

// Carries out the job that the command line names; `run` takes a model and feeds, gives outputs.
export async function work(versions, run) {
  const [jobPath, answerPath] = process.argv.slice(2);
  const job = JSON.parse(fs.readFileSync(jobPath, "utf8"));
  const answer = { versions };
  try {
    const answers = [];
    for (const request of job.requests) answers.push(await run(request.model, request.feeds));
    answer.answers = answers;
  } catch (error) {
    answer.refused = String(error?.message ?? error).split("\n")[0];
  }
  fs.writeFileSync(answerPath, JSON.stringify(answer));
}

export function version(name) {
  const place = new URL(`./node_modules/${name}/package.json`, import.meta.url);
  return `${name} ${JSON.parse(fs.readFileSync(place, "utf8")).version}`;
}
