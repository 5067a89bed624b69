// The page: what goes in on one side, what comes out on the other.
(function (page) {
  "use strict";

  if (typeof document === "undefined") return; // the rest is used without a page by tests
  const { labelled, make } = page.drawing;
  const by = (id) => document.getElementById(id);

  const STOPPED = new Error("stopped");

  // What a certificate is said to be.
  function certified(certificate) {
    if (!certificate) return "it carries no certificate";
    return certificate.passed ? `verified against ${certificate.against || "its source"} when it was compiled` : "its verification did not pass";
  }

  // What the model predicts, without where its states have ended.
  const predictionsOf = (manifest) => manifest.outputs.filter((one) => one.kind === "prediction" && !one.detail.state_of);

  class Page {
    constructor(told) {
      this.told = told;
      this.manifest = told.manifest;
      this.choices = new Map();
      this.session = new page.Session(told, (name, at, size) => this.say(progress(name, at, size)));
      this.running = false;
      this.again = false;
      told.problem = (error) => this.problem(error);
    }

    say(text) {
      by("status").textContent = text;
    }

    problem(error) {
      if (error === STOPPED) {
        this.say("Stopped.");
        return;
      }
      this.say("");
      by("problem").textContent = error instanceof page.InputError ? error.message : `This did not work: ${error?.message ?? error}`;
      if (!(error instanceof page.InputError)) console.warn(error);
    }

    async open() {
      const { manifest, told } = this;
      page.scales.setColours(told.colours);
      page.texts.setCasefold(told.casefold);
      const model = manifest.model.name ?? told.graph;
      const inputs = manifest.inputs.filter((spec) => spec.next_state === null).map((spec) => spec.name);
      const outputs = predictionsOf(manifest).map((spec) => spec.name);
      by("about").textContent = `${model}: ${inputs.join(", ")} \u2192 ${outputs.join(", ")}; ${certified(manifest.certificate)}.`;
      by("foot").textContent = `Runs in your browser by onnxruntime-web${told.onnxruntime && ` ${told.onnxruntime}`}; nothing that you give leaves this page. Made by probegen ${told.probegen}.`;
      this.parts = await page.parts(manifest, told, () => this.changed());
      by("inputs").append(...this.parts.map((part) => part.element));
      this.addRequest();
      by("form").addEventListener("submit", (event) => {
        event.preventDefault();
        this.run();
      });
      by("stop").addEventListener("click", () => this.session.stop(STOPPED));
      this.takeDrops();
      this.say("Ready.");
    }

    // Which class, and whether to explain.
    addRequest() {
      const { manifest } = this;
      const place = by("request");
      if (manifest.target_input) {
        const known = manifest.outputs.filter((one) => one.target?.mode === "input" && one.target.classes);
        const classes = known.length ? Math.min(...known.map((one) => one.target.classes)) : null;
        const names = page.views.namesOfScores(manifest.class_names, classes);
        if (classes !== null && classes <= 1000) {
          this.target = make("select", { autocomplete: "off", change: () => this.changed() }, make("option", { value: -1 }, "what the model decides for"));
          for (let i = 0; i < classes; i += 1) this.target.append(make("option", { value: i }, names ? `${names[i]} (${i})` : `class ${i}`));
        } else {
          this.target = make("input", { type: "number", value: -1, min: -1, max: classes === null ? null : classes - 1, change: () => this.changed() });
        }
        this.target.id = "target";
        place.append(labelled("Explain", this.target));
      }
      if (manifest.gate) {
        this.explain = make("input", { type: "checkbox", id: "explain", checked: true, change: () => this.changed() });
        place.append(make("label", { class: "check" }, this.explain, " With explanations"));
      }
    }

    takeDrops() {
      document.addEventListener("dragover", (event) => {
        event.preventDefault();
        document.body.classList.add("dropping");
      });
      for (const end of ["dragleave", "drop"]) document.addEventListener(end, () => document.body.classList.remove("dropping"));
      document.addEventListener("drop", (event) => {
        event.preventDefault();
        const [file] = event.dataTransfer.files;
        if (file) this.take(file).catch((error) => this.problem(error));
      });
    }

    // Takes a file that was dropped somewhere on the page.
    async take(file) {
      by("problem").textContent = "";
      const part = this.parts.find((one) => one.accepts(file));
      if (!part) throw new page.InputError(`${file.name}: this model takes no such file.`);
      await part.load(file);
    }

    changed() {
      if (by("at-once").checked) {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.run(), 150);
      }
    }

    async run() {
      if (this.running) {
        this.again = true;
        return;
      }
      this.running = true;
      by("stop").hidden = false;
      by("problem").textContent = "";
      try {
        await this.runOnce();
      } catch (error) {
        this.problem(error);
      }
      this.running = false;
      by("stop").hidden = true;
      if (this.again) {
        this.again = false;
        await this.run();
      }
    }

    async runOnce() {
      const { manifest } = this;
      const given = new Map();
      for (const part of this.parts) await part.value(given);
      const target = this.target ? Number(this.target.value) : -1;
      const explain = !manifest.gate || this.explain.checked;
      const feeds = page.inputs.feeds(manifest, given, { target, explain });
      this.note(given);
      this.say("Running\u2026");
      const outputs = await this.session.run(feeds, explain);
      const sources = manifest.inputs.map((spec) => {
        const value = given.get(spec.name);
        return new page.views.Source(spec, value, value.tokens, value.features);
      });
      const run = { manifest, outputs, sources, target, explain, choices: this.choices, feeds };
      page.last = run; // for tests, and for the console
      this.show(run);
      by("result").hidden = false;
      this.say(`Done${explain ? "" : ", without explanations"}.`);
    }

    note(given) {
      const { manifest } = this;
      const said = [];
      for (const spec of manifest.inputs) {
        const value = given.get(spec.name);
        said.push(...(value.notes ?? []), ...page.inputs.doubts(manifest, spec, value, Boolean(value.isPicture)));
      }
      by("notes").replaceChildren(...said.map((line) => make("li", {}, line)));
    }

    show(run) {
      const { manifest } = run;
      const there = (spec) => run.outputs[spec.name];
      by("predictions").replaceChildren(...predictionsOf(manifest).filter(there).map((spec) => card(run, spec, `${spec.title}: ${spec.name}`)));
      const explained = manifest.outputs.filter((one) => one.kind !== "prediction" && one.draw !== "beside" && there(one));
      const place = by("explanations");
      if (!run.explain || !explained.length) {
        place.replaceChildren();
        return;
      }
      const chosen = this.choices.get("method");
      const first = explained.find((one) => one.name === chosen) ?? explained[0];
      const select = make("select", { id: "method", autocomplete: "off" });
      for (const [title, members] of grouped(explained)) {
        select.append(make("optgroup", { label: title }, ...members.map((one) => make("option", { value: one.name, selected: one === first }, `${one.title}: ${page.views.place(one)}`))));
      }
      const shown = make("div");
      const show = (name) => {
        this.choices.set("method", name);
        shown.replaceChildren(card(run, manifest.outputs.find((one) => one.name === name)));
      };
      select.addEventListener("change", () => show(select.value));
      const hadFocus = document.activeElement?.id === "method";
      place.replaceChildren(make("div", { class: "row" }, labelled("Show", select)), shown);
      show(first.name);
      if (hadFocus) select.focus();
    }
  }

  function grouped(specs) {
    const titles = { map: "What speaks for the result", attention: "Attention", activation: "Layers" };
    const groups = new Map();
    for (const spec of specs) {
      const title = titles[spec.draw] ?? "Others";
      groups.set(title, [...(groups.get(title) ?? []), spec]);
    }
    return groups;
  }

  // A picture with its heading and what a reader must know.
  function card(run, spec, title = null) {
    const view = page.views.viewOf(spec, run);
    const verdict = page.views.verdict(view);
    const heading = title ?? `${spec.title}: ${page.views.place(spec)}`;
    const made = make("article", { class: "card", "data-output": spec.name }, make("h3", {}, heading));
    if (title === null && verdict) made.append(make("p", {}, verdict));
    const body = make("div");
    made.append(body);
    const notes = [...page.plots.drawn(view, body), ...page.views.remarks(view)];
    const lacking = run.outputs[`completeness/${spec.name}`];
    if (lacking) notes.push(`missing to completeness: ${page.scales.number(lacking.data[0])}`);
    if (notes.length) made.append(make("p", { class: "muted" }, notes.join("; ")));
    const source = [spec.method, spec.paper].filter(Boolean).join(" \u2014 ");
    if (source) made.append(make("details", {}, make("summary", {}, "What this is"), make("p", { class: "muted" }, source)));
    return made;
  }

  function progress(name, at, size) {
    const shown = (bytes) => (bytes / 1e6).toFixed(1);
    return size >= at ? `Loading ${name}: ${shown(at)} of ${shown(size)} MB` : `Loading ${name}: ${shown(at)} MB`;
  }

  const opened = new Page(JSON.parse(by("told").textContent));
  page.page = opened;
  opened.open().catch((error) => opened.problem(error));
})((globalThis.probegen = globalThis.probegen || {}));
