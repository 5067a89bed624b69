// Runs the artefact by onnxruntime-web, in a worker, so that the page stays alive meanwhile. The worker
// is made of what the page has read, and fetches nothing by itself (worker.js).
(function (page) {
  "use strict";

  const FOLDER = "onnxruntime/";
  const SCRIPT = "ort.wasm.min.js";
  const MODULE = "ort-wasm-simd-threaded.mjs";
  const WASM = "ort-wasm-simd-threaded.wasm";

  class Session {
    constructor(told, progress) {
      this.told = told;
      this.read = (name, folder = "") => page.files.bytesOf(name, folder, progress);
      this.worker = null; // a promise of it
      this.opened = new Map(); // names of graphs -> promises
      this.waiting = new Map(); // numbers of messages -> what takes the answer
      this.count = 0;
    }

    start() {
      if (this.worker === null) {
        const started = this.begin();
        this.worker = started;
        started.catch(() => {
          if (this.worker === started) this.worker = null; // to be tried anew
        });
      }
      return this.worker;
    }

    async begin() {
      const [script, own] = [await this.read(SCRIPT, FOLDER), await this.read("worker.js")];
      const worker = new Worker(URL.createObjectURL(new Blob([script, "\n", own], { type: "text/javascript" })));
      worker.onmessage = ({ data }) => this.answered(data);
      worker.onerror = (event) => this.stop(new Error(event.message || "the worker could not be started"));
      const [module, wasm] = [await this.read(MODULE, FOLDER), await this.read(WASM, FOLDER)];
      await this.ask(worker, "start", { module, wasm: wasm.buffer }, [wasm.buffer]);
      return worker;
    }

    ask(worker, what, given, handed = []) {
      if (worker.ended) return Promise.reject(worker.ended);
      this.count += 1;
      const number = this.count;
      return new Promise((resolve, reject) => {
        this.waiting.set(number, { resolve, reject });
        worker.postMessage({ number, what, given }, handed);
      });
    }

    answered({ number, made, problem }) {
      const { resolve, reject } = this.waiting.get(number) ?? {};
      this.waiting.delete(number);
      if (problem === undefined) resolve?.(made);
      else reject?.(new Error(problem));
    }

    // Ends whatever runs; the next run starts anew.
    stop(error) {
      this.worker?.then((worker) => {
        worker.ended = error;
        worker.terminate();
      }, () => {});
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
      this.opened.clear();
      this.worker = null;
    }

    open(name) {
      if (!this.opened.has(name)) {
        const opening = this.load(name);
        this.opened.set(name, opening);
        opening.catch(() => {
          if (this.opened.get(name) === opening) this.opened.delete(name);
        });
      }
      return this.opened.get(name);
    }

    async load(name) {
      const worker = await this.start();
      const { data } = this.told;
      const graph = await this.read(name);
      const weights = data === null ? null : { path: data, data: await this.read(data) };
      await this.ask(worker, "open", { name, graph, weights }, [graph.buffer, ...(weights ? [weights.data.buffer] : [])]);
      return worker;
    }

    // Returns outputs by name, { data: numbers, dims, dtype }.
    async run(feeds, explain) {
      const { manifest, graph, explainGraph } = this.told;
      const isSplit = manifest.gate === "split";
      const name = isSplit && explain ? explainGraph : graph;
      const own = new Set(manifest.inputs.map((spec) => spec.name));
      const fed = Object.entries(feeds).filter(([input]) => !isSplit || explain || own.has(input));
      const found = await this.ask(await this.open(name), "run", { name, feeds: Object.fromEntries(fed) });
      const read = ({ dtype, dims, data }) => ({ dtype, dims, data: numbers(dtype, data) });
      return Object.fromEntries(Object.entries(found).map(([output, array]) => [output, read(array)]));
    }
  }

  function numbers(dtype, data) {
    const isHalf = dtype === "float16" && data instanceof Uint16Array;
    return isHalf ? Float64Array.from(data, page.inputs.fromHalf) : page.arrays.floats(data);
  }

  page.Session = Session;
})((globalThis.probegen = globalThis.probegen || {}));
