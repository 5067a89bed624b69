// Shows the sample, method and class that are chosen above; without a script all are shown.
(function () {
  "use strict";
  var form = document.getElementById("choose");
  var choices = Array.from(form.querySelectorAll("select"));
  var parts = Array.from(document.querySelectorAll("[data-sample], [data-output], [data-class]"));

  function differs(part) {
    return choices.some(function (choice) {
      var own = part.getAttribute("data-" + choice.name);
      return choice.value !== "" && own !== null && own !== choice.value;
    });
  }

  function show() {
    parts.forEach(function (part) { part.hidden = differs(part); });
    document.querySelectorAll("[data-none]").forEach(function (none) {
      var figures = Array.from(none.parentElement.querySelectorAll("figure"));
      none.hidden = figures.some(function (figure) { return !figure.hidden; });
    });
  }

  var linked = /^#sample-(\d+)$/.exec(window.location.hash);
  choices.forEach(function (choice) {
    if (choice.name === "sample" && linked) { choice.value = linked[1]; }
  });
  document.querySelectorAll("nav").forEach(function (nav) { nav.hidden = true; });
  form.addEventListener("change", show);
  window.addEventListener("pageshow", show);
  form.hidden = false;
  show();
})();
