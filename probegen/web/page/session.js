// Runs the artefact by onnxruntime-web; the graphs are opened when they are first needed.
(function (page) {
  "use strict";

  const MODULE = "ort-wasm-simd-threaded.mjs";
  const WASM = "ort-wasm-simd-threaded.wasm";

  let ready = null;

  // Hands onnxruntime its own files from memory, so that it fetches nothing by itself.
  function runtime(progress) {
    ready ??= (async () => {
      const module = await page.files.bytesOf(MODULE, "onnxruntime/", progress);
      const settings = globalThis.ort.env.wasm;
      settings.numThreads = 1; // more need a server that isolates the page
      settings.wasmBinary = (await page.files.bytesOf(WASM, "onnxruntime/", progress)).buffer;
      settings.wasmPaths = { mjs: URL.createObjectURL(new Blob([module], { type: "text/javascript" })) };
      globalThis.ort.env.logLevel = "error";
      return globalThis.ort;
    })();
    return ready;
  }

  class Session {
    constructor(told, progress) {
      this.told = told;
      this.progress = progress;
      this.graphs = new Map();
      this.read = new Map();
    }

    bytes(name) {
      if (!this.read.has(name)) this.read.set(name, page.files.bytesOf(name, "", this.progress));
      return this.read.get(name);
    }

    open(name) {
      if (!this.graphs.has(name)) {
        this.graphs.set(name, (async () => {
          const ort = await runtime(this.progress);
          const options = { executionProviders: ["wasm"] };
          if (this.told.data !== null) {
            options.externalData = [{ path: this.told.data, data: await this.bytes(this.told.data) }];
          }
          const graph = await this.bytes(name);
          this.read.delete(name);
          return ort.InferenceSession.create(graph, options);
        })());
      }
      return this.graphs.get(name);
    }

    // Returns outputs by name, { data: numbers, dims, dtype }.
    async run(feeds, explain) {
      const { manifest } = this.told;
      const split = manifest.gate === "split";
      const graph = await this.open(split && explain ? this.told.explainGraph : this.told.graph);
      const fed = {};
      for (const [name, { dtype, data, dims }] of Object.entries(feeds)) {
        const beside = split && !explain && !manifest.inputs.some((spec) => spec.name === name);
        if (!beside) fed[name] = new globalThis.ort.Tensor(dtype, data, dims);
      }
      const found = await graph.run(fed);
      const made = {};
      for (const [name, tensor] of Object.entries(found)) {
        made[name] = { dtype: tensor.type, dims: [...tensor.dims], data: numbers(tensor) };
        tensor.dispose?.();
      }
      return made;
    }
  }

  function numbers(tensor) {
    const convert = tensor.type === "float16" && tensor.data instanceof Uint16Array ? page.inputs.fromHalf : Number;
    return Float64Array.from(tensor.data, convert);
  }

  page.Session = Session;
})((globalThis.probegen = globalThis.probegen || {}));
