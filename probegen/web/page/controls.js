// What widgets share. A widget says which inputs it fits, and makes an element for one:
// { element, value, load }. `value` resolves to one sample with its batch axis: { data, shape }, with
// notes, names or time where it knows some; `load` takes a file, `accepts` tells which.
(function (page) {
  "use strict";

  const { make } = page.drawing;

  const TABLE = /\.(csv|tsv|txt)$/i;
  let count = 0;

  // A labelled control; `help` stands below it.
  function field(title, control, help = null) {
    count += 1;
    control.id ||= `field-${count}`;
    const parts = [make("label", { for: control.id }, title), control];
    if (help !== null) {
      control.setAttribute("aria-describedby", `${control.id}-help`);
      parts.push(make("small", { class: "muted", id: `${control.id}-help` }, help));
    }
    return make("div", { class: "field" }, ...parts);
  }

  // A control that opens a file of some kinds: `load` takes it, `problem` what it cannot take.
  function opener(title, accept, load, problem) {
    const control = make("input", {
      type: "file",
      accept,
      change: () => {
        if (control.files.length) load(control.files[0]).catch(problem);
        control.value = "";
      },
    });
    return field(title, control);
  }

  // A box for pasted text: `take` takes it, `problem` what it cannot take.
  function pasteBox(rows, take, problem) {
    const box = make("textarea", {
      rows, spellcheck: "false", autocomplete: "off",
      change: () => {
        try {
          take(box.value);
        } catch (error) {
          problem(error);
        }
      },
    });
    return box;
  }

  // A choice among the rows of a table, hidden while there is one: `offer(count)` begins with the first.
  function rowChoice(show) {
    const which = make("select", { autocomplete: "off", change: () => show(which.selectedIndex) });
    const element = make("div", { hidden: true }, field("Row", which));
    const offer = (count) => {
      which.replaceChildren(...Array.from({ length: count }, (_, i) => make("option", { value: i }, `${i + 1} of ${count}`)));
      element.hidden = count < 2;
      show(0);
    };
    return { element, offer };
  }

  const innerAxes = (spec) => spec.axes.filter((axis) => axis !== "batch");
  const innerSizes = (spec) => spec.shape.filter((_, i) => spec.axes[i] !== "batch");

  // Puts the batch axis, of one sample, where the input has it.
  function withBatch(spec, data, sizes) {
    const at = spec.axes.indexOf("batch");
    const shape = sizes.slice();
    if (at >= 0) shape.splice(at, 0, 1);
    return { data, shape };
  }

  page.widgets = { TABLE, field, innerAxes, innerSizes, opener, pasteBox, rowChoice, withBatch };
})((globalThis.probegen = globalThis.probegen || {}));
