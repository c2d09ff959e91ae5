// <tabula-tokenizer>: any text as tokens, and the merges that made one. Vocabularies are fetched when they are wanted:
// until then the example stands as demo/site/live/tokenizer.py wrote it.
import { el } from "../page/dom.js";
import { visible } from "../page/format.js";
import { pattern, Tokenizer } from "./bpe.js";
import { count, figure } from "./numbers.js";

const QUIET = 800; // ms without input until the count is read aloud

class Playground extends HTMLElement {
  connectedCallback() {
    this.files = new Map();
    this.tokenizers = new Map();
    this.at = (name) => this.querySelector(`[data-part="${name}"]`);
    this.chips = this.at("chips");
    this.text = this.querySelector("textarea");
    for (const node of this.querySelectorAll("textarea, input, button")) node.disabled = false;
    this.text.oninput = () => this.encode();
    for (const radio of this.querySelectorAll("input")) radio.onchange = () => this.encode();
    this.chips.onclick = ({ target }) => this.choose(target.closest("button"));
    this.chips.onkeydown = (event) => this.move(event);
  }

  disconnectedCallback() {
    clearTimeout(this.timer);
  }

  get ticked() {
    return this.querySelector("input:checked").value;
  }

  /** The ticked tokenizer; null, and said so, where its vocabulary does not arrive, or is not wanted any more. */
  async tokenizer() {
    const name = this.ticked;
    try {
      if (!this.tokenizers.has(name)) {
        this.at("sum").textContent = "Loading the vocabulary";
        const books = await this.file("tokenizer.json");
        this.words ??= pattern(books.classes);
        const made = name === "gpt2"
          ? new Tokenizer(this.words, await this.file("tokenizer-gpt2.json"))
          : new Tokenizer(this.words, books, Number(name));
        this.tokenizers.set(name, made);
      }
      return name === this.ticked ? this.tokenizers.get(name) : null;
    } catch (error) {
      this.at("sum").textContent = `The vocabulary could not be loaded (${error.message}).`;
      return null;
    }
  }

  file(name) {
    if (!this.files.has(name)) {
      const loading = fetch(new URL(name, import.meta.url)).then((answer) => {
        if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
        return answer.json();
      });
      loading.catch(() => this.files.delete(name)); // so that it is tried again
      this.files.set(name, loading);
    }
    return this.files.get(name);
  }

  async encode() {
    const tokenizer = await this.tokenizer();
    if (!tokenizer) return;
    const text = this.text.value;
    const ids = tokenizer.encode(text);
    const bytes = new TextEncoder().encode(text).length;
    this.chips.replaceChildren(...ids.map((id, i) => chip(tokenizer, id, i === 0)));
    const rate = ids.length ? `: ${figure(bytes / ids.length)} bytes a token` : "";
    const says = `${count(bytes, "byte")}, ${count(ids.length, "token")}${rate}`;
    this.at("sum").textContent = says;
    this.at("which").textContent = "Choose a token to see the merges that made it";
    this.at("merges").replaceChildren();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.at("status").textContent = says; }, QUIET);
  }

  /** Shows the merges that made a chip's token. */
  async choose(button) {
    if (!button) return;
    for (const other of this.chips.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === button));
      other.tabIndex = other === button ? 0 : -1;
    }
    const tokenizer = await this.tokenizer();
    if (!tokenizer || !button.isConnected) return;
    const id = Number(button.querySelector("small").textContent);
    const merges = tokenizer.history(id);
    const made = merges.length ? `made by ${count(merges.length, "merge")}` : "a byte: no merge made it";
    this.at("which").textContent = `${shown(tokenizer, id)} is ${made}`;
    this.at("merges").replaceChildren(...merges.map((made) => {
      const [left, right] = tokenizer.parts(made).map((part) => shown(tokenizer, part));
      const number = (made - tokenizer.first + 1).toLocaleString("en");
      return el("li", {}, el("span", { class: "book", text: `${left} + ${right} → ${shown(tokenizer, made)}` }),
        el("small", { text: `merge ${number}` }));
    }));
    this.at("status").textContent = this.at("which").textContent;
  }

  /** One stop of the Tab key for all chips; arrows go between them. */
  move(event) {
    const buttons = [...this.chips.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || !buttons[to]) return;
    event.preventDefault();
    buttons[to].focus();
    buttons[at].tabIndex = -1;
    buttons[to].tabIndex = 0;
  }
}

function chip(tokenizer, id, first) {
  const button = el("button", { type: "button", "aria-pressed": "false", tabindex: first ? "0" : "-1" },
    el("span", { class: "book", text: shown(tokenizer, id) }), el("small", { text: id }));
  return el("li", {}, button);
}

/** A token so that blanks are seen; bytes that are no text alone, in hexadecimal. */
function shown(tokenizer, id) {
  const bytes = Uint8Array.from(tokenizer.bytesOf(id));
  try {
    return visible(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  }
}

if (!customElements.get("tabula-tokenizer")) customElements.define("tabula-tokenizer", Playground);
