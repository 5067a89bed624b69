// Takes texts apart as probegen.runtime.texts does. TensorFlow works on bytes, and so does this: a
// text inside of here is one of bytes, a character from U+0000 to U+00FF a byte.
(function (page) {
  "use strict";

  const PUNCTUATION = new Set("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'");
  const SPACES = /[ \t\n\r\v\f]+/;
  const MOST_BYTES_OF_A_WORD = 100;
  const { fail } = page;

  // Returns a text as bytes (UTF-8).
  function toBytes(text) {
    if (/\p{Surrogate}/u.test(text)) fail("The text holds half of a surrogate pair, which is no character.");
    let made = "";
    for (const byte of new TextEncoder().encode(text)) made += String.fromCharCode(byte);
    return made;
  }

  const array = (bytes) => Uint8Array.from(bytes, (one) => one.charCodeAt(0));

  // Returns the text of bytes; null where they are no UTF-8.
  function toText(bytes) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(array(bytes));
    } catch {
      return null;
    }
  }

  // Returns how bytes read; those that are no UTF-8 as \xff.
  function shown(bytes) {
    const whole = toText(bytes);
    if (whole !== null) return whole;
    let made = "";
    for (let at = 0; at < bytes.length; ) {
      const size = [1, 2, 3, 4].find((n) => at + n <= bytes.length && toText(bytes.slice(at, at + n)) !== null);
      made += size ? toText(bytes.slice(at, at + size)) : `\\x${bytes.charCodeAt(at).toString(16).padStart(2, "0")}`;
      at += size || 1;
    }
    return made;
  }

  // Returns a packed setting; its texts are bytes.
  async function unpacked(packed) {
    const bytes = await page.files.unpacked(array(atob(packed)), "deflate");
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return JSON.parse(text);
  }

  function withoutPadding(ids, padding) {
    let end = ids.length;
    while (end && ids[end - 1] === padding) end -= 1;
    return ids.slice(0, end);
  }

  function padded(row, length, padding, left = false) {
    if (length === null || length === undefined) return row.slice();
    const kept = row.slice(0, length);
    const filler = new Array(length - kept.length).fill(padding);
    return left ? [...filler, ...kept] : [...kept, ...filler];
  }

  const rowOf = (ids) => ({ data: ids, shape: [1, ids.length] });

  // -- whole words -----------------------------------------------------------------------------

  class Lookup {
    constructor(settings, vocabulary, weights) {
      this.mask = settings.mask_token === null ? null : toBytes(settings.mask_token);
      this.oov = settings.oov;
      this.mode = settings.mode;
      this.words = this.mode === "int";
      this.oovAt = this.mask !== null && this.words ? 1 : 0;
      this.float = settings.dtype === "float32" ? Math.fround : (value) => value;
      this.weights = weights;
      const first = this.oovAt + this.oov;
      this.places = new Map(vocabulary.map((word, place) => [word, first + place]));
      this.names = [
        ...new Array(this.oovAt).fill(shown(this.mask ?? "")),
        ...new Array(this.oov).fill(String(settings.oov_token)),
        ...vocabulary.map(shown),
      ];
      this.depth = settings.depth || this.names.length;
    }

    static async of(settings) {
      const weights = settings.weights ? await unpacked(settings.weights) : null;
      return new Lookup(settings, await unpacked(settings.vocabulary), weights);
    }

    id(word) {
      if (this.mask !== null && word === this.mask) return this.words ? 0 : -1;
      const found = this.places.get(word);
      if (found !== undefined) return found;
      if (this.oov === 0) {
        fail(`"${shown(word)}" is not in the vocabulary, and the model has no id for other words.`);
      }
      return this.oovAt + (this.oov > 1 ? Number(page.fingerprint(word) % BigInt(this.oov)) : 0);
    }

    counted(ids) {
      const counts = new Array(this.depth).fill(0);
      for (const id of ids) if (id >= 0) counts[id] += 1;
      const kept = this.mode === "count" || this.mode === "tf_idf" ? counts : counts.map((n) => Math.min(n, 1));
      if (this.weights === null) return kept;
      return kept.map((n, i) => this.float(n * this.float(this.weights[i])));
    }

    encode(texts, shape) {
      const ids = texts.map((text) => this.id(text));
      return { ids: this.words ? { data: ids, shape } : rowOf(this.counted(ids)) };
    }

    tokens(ids) {
      const row = this.mask === null ? ids : withoutPadding(ids, 0);
      return row.map((id) => this.names[id] ?? String(id));
    }

    features() {
      return this.names;
    }
  }

  class Vectorization {
    constructor(settings, lookup) {
      this.settings = settings;
      this.lookup = lookup;
      this.words = lookup.words;
    }

    static async of(settings) {
      return new Vectorization(settings, await Lookup.of(settings));
    }

    split(text) {
      const { standardize, split, ngrams } = this.settings;
      if (standardize === "lower" || standardize === "lower_and_strip_punctuation") {
        text = text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
      }
      if (standardize === "strip_punctuation" || standardize === "lower_and_strip_punctuation") {
        text = [...text].filter((sign) => !PUNCTUATION.has(sign)).join("");
      }
      let words = [text];
      if (split === "whitespace") words = text.split(SPACES).filter((word) => word !== "");
      if (split === "character") {
        const read = toText(text);
        if (read === null) fail("The text is no UTF-8, so it has no characters to split into.");
        words = Array.from(read, toBytes);
      }
      if (!ngrams) return words;
      const found = [];
      for (const width of ngrams) {
        for (let at = 0; at + width <= words.length; at += 1) found.push(words.slice(at, at + width).join(" "));
      }
      return found;
    }

    encode(texts, shape) {
      const ids = this.split(texts[0]).map((word) => this.lookup.id(word));
      if (!this.words) return { ids: rowOf(this.lookup.counted(ids)) };
      if (this.settings.split === null) return { ids: { data: padded(ids, 1, 0), shape } };
      return { ids: rowOf(padded(ids, this.settings.length, 0)) };
    }

    tokens(ids) {
      return this.lookup.tokens(ids);
    }

    features() {
      return this.lookup.names;
    }
  }

  class Hashing {
    constructor(settings) {
      this.settings = settings;
      this.mask = settings.mask === null ? null : toBytes(String(settings.mask));
      this.words = settings.mode === "int";
    }

    static async of(settings) {
      return new Hashing(settings);
    }

    bin(text) {
      const { bins } = this.settings;
      if (this.mask === null || bins === 1) return Number(page.fingerprint(text) % BigInt(bins));
      return text === this.mask ? 0 : 1 + Number(page.fingerprint(text) % BigInt(bins - 1));
    }

    encode(texts, shape) {
      const ids = texts.map((text) => this.bin(text));
      if (this.words) return { ids: { data: ids, shape } };
      const counts = new Array(this.settings.bins).fill(0);
      for (const id of ids) counts[id] += 1;
      return { ids: rowOf(this.settings.mode === "count" ? counts : counts.map((n) => Math.min(n, 1))) };
    }

    tokens(ids) {
      return ids.map((id) => `#${id}`);
    }

    features() {
      return Array.from({ length: this.settings.bins }, (_, id) => `#${id}`);
    }
  }

  // -- pieces of words -------------------------------------------------------------------------

  // Returns a regular expression's source of one sign out of ranges.
  function signs(ranges) {
    if (!ranges.length) return "(?!)";
    const written = ranges.map(([a, b]) => `\\u{${a.toString(16)}}-\\u{${b.toString(16)}}`);
    return `[${written.join("")}]`;
  }

  const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

  let casefold = {};

  // Takes what each sign becomes when case is folded, where that is another.
  function setCasefold(told) {
    casefold = told;
  }

  function folded(text, ignorable) {
    const lowered = Array.from(text.normalize("NFKC"), (sign) => casefold[sign] ?? sign).join("");
    return lowered.normalize("NFKC").replace(ignorable, "");
  }

  // What tokenizers of pieces share: special tokens around a text, cutting, padding, masks.
  class Pieces {
    constructor(settings) {
      this.settings = settings;
      this.words = true;
      this.pairs = (settings.between ?? null) !== null;
    }

    row(text) {
      const { length, start, end } = this.settings;
      let pieces = this.pieces(text);
      if (length !== null) pieces = pieces.slice(0, Math.max(0, length - start.length - end.length));
      const row = [...start, ...pieces, ...end];
      return [length === null ? row : row.slice(0, length), null];
    }

    pair(first, second) {
      const { length, start, between, end, truncate = "round_robin" } = this.settings;
      let [one, other] = [this.pieces(first), this.pieces(second)];
      if (length !== null) {
        const room = Math.max(0, length - start.length - between.length - end.length);
        const most = truncate === "round_robin" ? Math.max(room - other.length, Math.ceil(room / 2)) : room;
        one = one.slice(0, most);
        other = other.slice(0, room - one.length);
      }
      const ids = [...start, ...one, ...between, ...other, ...end];
      const before = start.length + one.length + between.length;
      return [ids, ids.map((_, place) => (place < before ? 0 : 1))];
    }

    encode(texts) {
      const read = texts.map((text) => toText(text) ?? fail("The text is no UTF-8."));
      const [ids, segments] = read.length === 2 && this.pairs ? this.pair(...read) : this.row(read[0]);
      const { length, padding, side } = this.settings;
      const left = side === "left";
      const fill = (row, filler) => rowOf(padded(row, length, filler, left));
      return {
        ids: fill(ids, padding),
        mask: fill(ids.map(() => 1), 0),
        segments: fill(segments ?? ids.map(() => 0), 0),
      };
    }

    tokens(ids) {
      return withoutPadding(ids, this.settings.padding).map((id) => this.token(id));
    }
  }

  class WordPieces extends Pieces {
    constructor(settings, vocabulary, dividers, kept, ignorable) {
      super(settings);
      this.names = vocabulary.map(shown);
      this.places = new Map(this.names.map((token, place) => [token, place]));
      this.special = settings.special || [];
      const special = this.special.map(escaped);
      this.divider = new RegExp([...special, signs(dividers)].join("|"), "gu");
      this.kept = new RegExp(`^(?:${[...special, signs(kept)].join("|")})$`, "u");
      this.ignorable = new RegExp(signs(ignorable), "gu");
    }

    static async of(settings) {
      const packed = ["vocabulary", "dividers", "kept", "ignorable"];
      return new WordPieces(settings, ...(await Promise.all(packed.map((name) => unpacked(settings[name])))));
    }

    pieces(text) {
      if (this.settings.strip_accents) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
      let words = this.settings.split ? this.divided(text) : [text];
      if (this.settings.lowercase) {
        words = words.map((word) => (this.special.includes(word) ? word : folded(word, this.ignorable)));
      }
      return words.flatMap((word) => this.ofWord(word)).map((token) => this.places.get(token));
    }

    divided(text) {
      const words = [];
      let at = 0;
      for (const found of text.matchAll(this.divider)) {
        if (found.index > at) words.push(text.slice(at, found.index));
        if (this.kept.test(found[0])) words.push(found[0]);
        at = found.index + found[0].length;
      }
      if (at < text.length) words.push(text.slice(at));
      return words;
    }

    ofWord(word) {
      const { unknown, suffix } = this.settings;
      if (!word) return [];
      if (new TextEncoder().encode(word).length > MOST_BYTES_OF_A_WORD) return [unknown];
      const letters = Array.from(word);
      const found = [];
      for (let start = 0; start < letters.length; ) {
        const prefix = start ? suffix : "";
        let end = letters.length;
        while (end > start && !this.places.has(prefix + letters.slice(start, end).join(""))) end -= 1;
        if (end === start) return [unknown];
        found.push(prefix + letters.slice(start, end).join(""));
        start = end;
      }
      return found;
    }

    token(id) {
      return this.names[id] ?? String(id);
    }
  }

  class CodePoints extends Pieces {
    constructor(settings, ignorable) {
      super(settings);
      this.bytes = settings.unit === "byte";
      this.ignorable = new RegExp(signs(ignorable), "gu");
    }

    static async of(settings) {
      return new CodePoints(settings, await unpacked(settings.ignorable));
    }

    pieces(text) {
      const { lowercase, form, most } = this.settings;
      if (lowercase) text = folded(text, this.ignorable);
      if (form) text = text.normalize(form);
      const ids = this.bytes ? [...new TextEncoder().encode(text)] : Array.from(text, (sign) => sign.codePointAt(0));
      return most === null ? ids : ids.map((id) => Math.min(id, most - 1));
    }

    token(id) {
      if (this.bytes && id > 127) return `\\x${id.toString(16).padStart(2, "0")}`;
      return id >= 0 && id < 0x110000 ? String.fromCodePoint(id) : String(id);
    }
  }

  const KINDS = {
    string_lookup: Lookup,
    text_vectorization: Vectorization,
    hashing: Hashing,
    word_piece: WordPieces,
    code_points: CodePoints,
  };

  // Returns what takes the texts of a manifest's entry apart; null where the page cannot.
  async function tokenizerOf(text) {
    const kind = KINDS[text.tokenizer.kind];
    return kind ? kind.of(text.tokenizer) : null;
  }

  // Returns a token so that white space in it can be seen.
  const written = (token) =>
    token.replace(/ /g, "\u2423").replace(/\t/g, "\u21e5").replace(/\n/g, "\u21b5") || "\u2205";

  page.texts = { KINDS, padded, setCasefold, toBytes, tokenizerOf, withoutPadding, written };
})((globalThis.probegen = globalThis.probegen || {}));
