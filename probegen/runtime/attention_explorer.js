// Draws the attention weights of each explorer on the page: layers, heads, tokens and their links.
(function () {
  "use strict";
  // Lines for each query where no token is looked at.
  var LINES = 3;
  var MOST_SAID = 8;
  var SVG = "http://www.w3.org/2000/svg";

  function make(tag, parent, text) {
    var made = document.createElement(tag);
    if (text !== undefined) { made.textContent = text; }
    if (parent) { parent.appendChild(made); }
    return made;
  }

  // Spaces can be seen.
  function shown(token) {
    return token.replace(/ /g, "\u2423").replace(/\t/g, "\u21e5").replace(/\n/g, "\u21b5") || "\u2205";
  }

  function number(value) {
    var text = Math.abs(value) >= 0.0005 || value === 0 ? value.toFixed(3) : value.toExponential(1);
    return text.replace("-", "\u2212");
  }

  // Returns the weights [head][query * keys + key] of a layer as numbers; the mean of heads first.
  function decoded(layer) {
    var bytes = atob(layer.weights);
    var heads = layer.shape[0], size = layer.shape[1] * layer.shape[2];
    var found = [], mean = new Float64Array(size);
    for (var head = 0; head < heads; head++) {
      var row = new Float64Array(size);
      for (var i = 0; i < size; i++) {
        var at = 2 * (head * size + i);
        var level = bytes.charCodeAt(at) + 256 * bytes.charCodeAt(at + 1);
        row[i] = layer.low + layer.span * level / 65535;
        mean[i] += row[i] / heads;
      }
      found.push(row);
    }
    return heads > 1 ? [mean].concat(found) : found;
  }

  function explorer(article, number_) {
    var layers = JSON.parse(article.getAttribute("data-attention"));
    var weights = layers.map(function () { return null; });
    var at = { layer: 0, head: 0, side: null, place: 0, kept: false };
    article.removeAttribute("data-attention");

    var choices = make("div", article);
    choices.className = "choices";
    var layerChoice = choice("Layer", layers.map(function (layer) { return layer.name; }));
    var headChoice = choice("Head", []);
    var thumbnails = make("div", article);
    thumbnails.className = "heads";
    var links = make("div", article);
    links.className = "links";
    var lists = {};
    lists.queries = column("queries", "query");
    var middle = make("div", links);
    var picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("aria-hidden", "true");
    picture.setAttribute("preserveAspectRatio", "none");
    middle.appendChild(picture);
    lists.keys = column("keys", "key");
    var said = make("p", article);
    said.className = "said";
    said.setAttribute("aria-live", "polite");

    function choice(title, names) {
      var label = make("label", choices, title + " ");
      var select = make("select", label);
      select.setAttribute("autocomplete", "off");
      offer(select, names);
      return select;
    }

    function offer(select, names) {
      select.textContent = "";
      names.forEach(function (name, i) { make("option", select, name).value = String(i); });
      select.parentElement.hidden = names.length < 2;
    }

    function column(side, title) {
      var holder = make("div", links);
      holder.className = side;
      var heading = make("h4", holder, title);
      heading.id = "attention-" + number_ + "-" + side;
      var list = make("ul", holder);
      list.setAttribute("role", "listbox");
      list.setAttribute("aria-labelledby", heading.id);
      return list;
    }

    function current() {
      if (!weights[at.layer]) { weights[at.layer] = decoded(layers[at.layer]); }
      return weights[at.layer];
    }

    function headNames() {
      var count = layers[at.layer].shape[0], names = [];
      if (count > 1) { names.push("mean of " + count + " heads"); }
      for (var i = 0; i < count; i++) { names.push("head " + i); }
      return names;
    }

    // Fills in the tokens and heads of the layer that is chosen.
    function showLayer() {
      var layer = layers[at.layer];
      at.head = Math.min(at.head, current().length - 1);
      at.side = null;
      at.kept = false;
      offer(headChoice, headNames());
      fill("queries", layer.queries);
      fill("keys", layer.keys);
      thumbnails.textContent = "";
      if (current().length > 1) {
        headNames().forEach(function (name, head) {
          var button = make("button", thumbnails);
          button.type = "button";
          button.setAttribute("aria-label", name);
          button.title = name;
          make("canvas", button);
          make("span", button, head === 0 ? "mean" : String(head - 1));
          button.addEventListener("click", function () { at.head = head; showHead(); });
        });
        paint();
      }
      showHead();
    }

    function fill(side, tokens) {
      var list = lists[side];
      list.textContent = "";
      tokens.forEach(function (token, place) {
        var item = make("li", list);
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", "false");
        item.tabIndex = place === 0 ? 0 : -1;
        var text = make("span", item, shown(token));
        text.dir = "auto";
        make("small", item);
        item.addEventListener("mouseenter", function () { if (!at.kept) { look(side, place); } });
        item.addEventListener("focus", function () { if (!at.kept) { look(side, place); } });
        item.addEventListener("click", function () { keep(side, place); });
      });
    }

    // Draws each head as a small map, in the colour of the page.
    function paint() {
      var shape = layers[at.layer].shape;
      var colour = rgb(getComputedStyle(document.documentElement).getPropertyValue("--link").trim());
      Array.from(thumbnails.querySelectorAll("canvas")).forEach(function (canvas, head) {
        canvas.width = shape[2];
        canvas.height = shape[1];
        var context = canvas.getContext("2d");
        var image = context.createImageData(shape[2], shape[1]);
        var row = current()[head], top = largest(row);
        for (var i = 0; i < row.length; i++) {
          image.data.set([colour[0], colour[1], colour[2], 255 * Math.abs(row[i]) / top], 4 * i);
        }
        context.putImageData(image, 0, 0);
      });
    }

    function rgb(hex) {
      return [1, 3, 5].map(function (i) { return parseInt(hex.slice(i, i + 2), 16); });
    }

    function largest(row) {
      var top = 0;
      for (var i = 0; i < row.length; i++) { top = Math.max(top, Math.abs(row[i])); }
      return top || 1;
    }

    function showHead() {
      headChoice.value = String(at.head);
      Array.from(thumbnails.children).forEach(function (button, head) {
        button.setAttribute("aria-pressed", String(head === at.head));
      });
      show();
    }

    function look(side, place) {
      at.side = side;
      at.place = place;
      show();
    }

    function keep(side, place) {
      var same = at.kept && at.side === side && at.place === place;
      at.kept = !same;
      look(side, place);
    }

    function rest() {
      at.side = null;
      at.kept = false;
      show();
    }

    // Shows the weights of the token that is looked at, or the strongest links of all.
    function show() {
      var layer = layers[at.layer], row = current()[at.head], across = layer.shape[2];
      var top = largest(row);
      var found = [];
      for (var query = 0; query < layer.shape[1]; query++) {
        for (var key = 0; key < across; key++) {
          var wanted = at.side === null || at.place === (at.side === "queries" ? query : key);
          if (wanted) { found.push([query, key, row[query * across + key]]); }
        }
      }
      found.sort(function (a, b) { return Math.abs(b[2]) - Math.abs(a[2]); });
      mark(found, top);
      draw(at.side === null ? found.slice(0, LINES * layer.shape[1]) : found, top);
      tell(found);
    }

    function mark(found, top) {
      ["queries", "keys"].forEach(function (side) {
        var own = at.side === side;
        Array.from(lists[side].children).forEach(function (item, place) {
          item.setAttribute("aria-selected", String(own && place === at.place));
          item.style.setProperty("--share", "0");
          item.lastChild.textContent = "";
        });
      });
      if (at.side === null) { return; }
      var other = at.side === "queries" ? "keys" : "queries";
      found.forEach(function (link) {
        var item = lists[other].children[link[other === "keys" ? 1 : 0]];
        item.style.setProperty("--share", String(Math.abs(link[2]) / top));
        item.lastChild.textContent = number(link[2]);
      });
    }

    function draw(found, top) {
      var heading = lists.queries.offsetTop;
      var height = middle.clientHeight || 1;
      picture.setAttribute("viewBox", "0 0 100 " + height);
      picture.textContent = "";
      found.forEach(function (link) {
        var share = Math.abs(link[2]) / top;
        if (share < 0.02) { return; }
        var line = document.createElementNS(SVG, "line");
        line.setAttribute("x1", "0");
        line.setAttribute("x2", "100");
        line.setAttribute("y1", middleOf(lists.queries, link[0], heading));
        line.setAttribute("y2", middleOf(lists.keys, link[1], heading));
        line.setAttribute("stroke-width", String(0.5 + 3 * share));
        line.setAttribute("stroke-opacity", String(Math.min(1, at.side === null ? share : 0.15 + share)));
        if (link[2] < 0) { line.setAttribute("stroke-dasharray", "4 3"); }
        picture.appendChild(line);
      });
    }

    function middleOf(list, place, heading) {
      var item = list.children[place];
      return String(heading + item.offsetTop - list.offsetTop + item.offsetHeight / 2);
    }

    function tell(found) {
      var layer = layers[at.layer];
      said.textContent = "";
      if (at.side === null) { return; }
      var own = at.side === "queries";
      var name = (own ? layer.queries : layer.keys)[at.place];
      quote(name);
      said.appendChild(document.createTextNode(own ? " looks at " : " is looked at by "));
      found.slice(0, MOST_SAID).forEach(function (link, i) {
        if (i) { said.appendChild(document.createTextNode(", ")); }
        quote((own ? layer.keys : layer.queries)[link[own ? 1 : 0]]);
        said.appendChild(document.createTextNode(" " + number(link[2])));
      });
      if (found.length > MOST_SAID) {
        said.appendChild(document.createTextNode(" and " + (found.length - MOST_SAID) + " more"));
      }
    }

    function quote(token) {
      make("bdi", said, "\u201c" + shown(token) + "\u201d");
    }

    function go(side, place) {
      var items = lists[side].children;
      if (!items.length) { return; }
      place = Math.max(0, Math.min(place, items.length - 1));
      Array.from(items).forEach(function (item, i) { item.tabIndex = i === place ? 0 : -1; });
      at.kept = false;
      items[place].focus();
      look(side, place);
    }

    links.addEventListener("keydown", function (event) {
      var item = event.target.closest("li");
      if (!item) { return; }
      var side = item.parentElement === lists.queries ? "queries" : "keys";
      var place = Array.from(item.parentElement.children).indexOf(item);
      var last = item.parentElement.children.length - 1;
      var moves = {
        ArrowDown: [side, place + 1], ArrowUp: [side, place - 1], Home: [side, 0], End: [side, last],
        ArrowLeft: ["queries", place], ArrowRight: ["keys", place]
      };
      if (moves[event.key]) {
        go(moves[event.key][0], moves[event.key][1]);
      } else if (event.key === "Enter" || event.key === " ") {
        keep(side, place);
      } else if (event.key === "Escape") {
        rest();
      } else {
        return;
      }
      event.preventDefault();
    });
    links.addEventListener("mouseleave", function () { if (!at.kept) { rest(); } });
    layerChoice.addEventListener("change", function () { at.layer = Number(layerChoice.value); showLayer(); });
    headChoice.addEventListener("change", function () { at.head = Number(headChoice.value); showHead(); });
    // Sizes are known once the part of the page is shown.
    new ResizeObserver(function () { show(); }).observe(links);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
    showLayer();
  }

  Array.from(document.querySelectorAll("[data-attention]")).forEach(explorer);
})();
