// The worker: onnxruntime-web stands before this in one script. Messages are { number, what, given }.
(function (ort) {
  "use strict";

  const graphs = new Map();

  const DOES = {
    async start({ module, wasm }) {
      ort.env.logLevel = "error";
      ort.env.wasm.numThreads = 1; // more need a server that isolates the page
      ort.env.wasm.wasmBinary = wasm;
      ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([module], { type: "text/javascript" })) };
    },

    async open({ name, graph, weights }) {
      const options = { executionProviders: ["wasm"] };
      if (weights !== null) options.externalData = [weights];
      graphs.set(name, await ort.InferenceSession.create(graph, options));
    },

    async run({ name, feeds }) {
      const fed = Object.entries(feeds).map(([input, { dtype, data, dims }]) => [input, new ort.Tensor(dtype, data, dims)]);
      const found = await graphs.get(name).run(Object.fromEntries(fed));
      const plain = ({ type, dims, data }) => ({ dtype: type, dims: [...dims], data: data.slice() });
      return Object.fromEntries(Object.entries(found).map(([output, tensor]) => [output, plain(tensor)]));
    },
  };

  self.onmessage = async ({ data: { number, what, given } }) => {
    try {
      self.postMessage({ number, made: await DOES[what](given) });
    } catch (error) {
      self.postMessage({ number, problem: String(error?.message ?? error) });
    }
  };
})(self.ort ?? ort);
