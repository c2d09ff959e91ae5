// Data: which text, what it holds, and where it comes from.
import { el, memo, remake } from "./dom.js";
import { bytes, whole } from "./format.js";
import { sameText } from "./state.js";

const LEAST = 20_000; // bytes that are enough to train on

/** @param {import("./demo.js").Demo} demo */
export function mountData(demo) {
  const { root, parts, flow } = demo;
  const body = root.querySelector('[data-stage="data"] .stage__body');
  const radios = [...root.querySelectorAll('input[name="tb-source"]')];
  const picked = new Set();
  const files = [];

  radios.forEach((radio) => radio.addEventListener("change", () => choose(radio.value)));
  parts.get("search").addEventListener("input", () => drawLibrary(flow.state.library ?? []));
  parts.get("own").addEventListener("input", () => ownSize());
  parts.get("files").addEventListener("change", ({ target }) => {
    add([...target.files]);
    target.value = ""; // the same file may be chosen again
  });
  body.addEventListener("dragover", (event) => {
    event.preventDefault();
    if (!busy(flow.state)) body.dataset.dropping = "";
  });
  body.addEventListener("dragleave", () => delete body.dataset.dropping);
  body.addEventListener("drop", (event) => {
    event.preventDefault();
    delete body.dataset.dropping;
    if (busy(flow.state)) return;
    choose("text");
    add(event.dataTransfer.files);
  });

  const source = memo((value) => {
    radios.forEach((radio) => { radio.checked = radio.value === value; });
    root.querySelectorAll("[data-source]").forEach((part) => { part.hidden = part.dataset.source !== value; });
  });

  function choose(value) {
    flow.tries.stop();
    flow.state.source = value;
    source(value, value);
    if (value === "gutenberg" && !flow.state.library) demo.run(flow.boot().then(() => flow.ask("library")));
    changed();
  }

  /** Another text is chosen: Start loads it, if no button has. */
  function changed() {
    flow.sources = chosen();
    drawPicked();
    demo.draw(false);
  }

  function chosen() {
    const { source: kind } = flow.state;
    if (kind === "gutenberg") return [...picked].map((b) => ({ kind, name: b.repo }));
    return kind === "text" ? own() : [{ kind }];
  }

  async function add(list) {
    for (const file of list) {
      const text = (await file.text()).trim();
      if (text.includes("\0")) files.push({ title: file.name, text: "", why: "not text" });
      else files.push({ title: file.name.replace(/\.(txt|md)$/i, ""), text });
    }
    drawFiles();
  }

  function drawFiles() {
    remake(parts.get("own-files"), files.map((file, i) => el("li", {},
      el("span", { text: `${file.title} (${file.why ?? bytes(size(file.text))})` }),
      el("button", { class: "btn btn--small btn--quiet", type: "button", text: "Leave out", "aria-label": `Leave out ${file.title}`, onclick: () => { files.splice(i, 1); drawFiles(); } }))), parts.get("files"));
    ownSize();
  }

  function own() {
    const pasted = parts.get("own").value.trim();
    const texts = files.filter((file) => file.text).map(({ title, text }) => ({ kind: "text", title, text }));
    return pasted ? [{ kind: "text", title: "Pasted text", text: pasted }, ...texts] : texts;
  }

  function ownSize() {
    const total = own().reduce((sum, { text }) => sum + size(text), 0);
    parts.put("own-size", total < LEAST ? `${bytes(total)} given; 20 KB are needed.` : `${bytes(total)} given.`);
    changed();
    if (total >= LEAST && flow.state.trouble?.kind === "too_little") flow.settings.set({}); // as other settings do, it ends the trouble
  }

  function drawLibrary(books) {
    const wanted = parts.get("search").value.trim().toLowerCase();
    const found = books.filter((b) => `${b.title} ${b.author}`.toLowerCase().includes(wanted));
    parts.get("library").replaceChildren(...found.map((book) => {
      const box = el("input", { type: "checkbox", onchange: () => { picked[box.checked ? "add" : "delete"](book); changed(); } });
      box.checked = picked.has(book);
      return el("label", { class: "pick__row" }, box,
        el("span", {}, el("span", { text: book.title }), el("small", { text: book.author })),
        el("span", { class: "num muted", text: bytes(book.bytes) }));
    }));
    if (!found.length && books.length) parts.get("library").append(el("p", { class: "pick__row muted", text: "No book of that name." }));
    drawPicked();
  }

  /** What is picked, and the button that takes it. */
  function drawPicked() {
    const { state } = flow;
    const total = [...picked].reduce((sum, b) => sum + b.bytes, 0);
    parts.put("picked", state.library ? `${whole(picked.size)} of ${whole(state.library.length)} books, ${bytes(total)}` : "The list comes with Python, which is loading.");
    const button = parts.get("data-actions").querySelector("button");
    const { source: kind, loaded } = state;
    const texts = kind === "text" ? own() : [];
    parts.show("data-actions", kind !== "books" || (loaded !== null && !sameText(loaded, flow.sources)));
    button.disabled = busy(state) || (kind === "gutenberg" ? !picked.size : kind === "text" && texts.reduce((n, t) => n + size(t.text), 0) < LEAST);
    button.textContent = kind === "gutenberg" ? "Fetch these books" : "Use this text";
  }

  demo.on("load", () => flow.load(chosen()));
  demo.on("pick-books", () => {
    demo.open("data");
    parts.get("search").focus();
  });
  demo.on("add-text", () => {
    demo.open("data");
    choose("text");
    parts.get("own").focus();
  });

  const library = memo((books) => {
    root.querySelector('[data-t="library-title"]').textContent = `Pick from ${whole(books.length)} books`;
    drawLibrary(books);
  });
  const documents = memo((list) => {
    parts.get("documents").replaceChildren(...list.map((d, i) => {
      const title = el("button", { type: "button", text: d.title, onclick: () => demo.run(flow.ask("preview", { index: i })) });
      return el("tr", {}, el("th", { scope: "row", class: "wide" }, title, el("small", { text: d.author ?? "" })),
        el("td", { class: "r", text: bytes(d.bytes) }), el("td", { text: PARTS[d.split] ?? d.split }));
    }));
  });

  return {
    update(state) {
      source(state.source, state.source);
      if (state.library) library(state.library, state.library);
      if (state.documents.length) documents(state.documents, state.documents);
      parts.get("sources").disabled = busy(state);
      const shown = state.documents[state.previewed];
      parts.put("preview", state.preview || "The beginning of a text is shown here once it is read.");
      parts.put("provenance", shown ? whence(shown) : "Public domain books of Project Gutenberg, from GITenberg.");
      [...parts.get("documents").querySelectorAll("button")].forEach((b, i) => b.setAttribute("aria-pressed", String(i === state.previewed)));
      drawPicked();
    },
  };
}

/** The licence and the source of a document. */
function whence({ licence, source }) {
  if (source?.startsWith("text:")) return "Your own text. It stays in this tab.";
  return [licence, source && `Source: ${source}`].filter(Boolean).join(". ");
}

const PARTS = { training: "Training", "held-out": "Held out", both: "Both" };
const size = (text) => new Blob([text]).size;
const busy = (state) => ["working", "paused"].includes(state.phase) || state.mode === "recorded";
