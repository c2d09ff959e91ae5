// Inference: a prompt, tokens as they come, how likely each was, and what else it could have been.
import { barCell, el, memo } from "./dom.js";
import { figure, percent, visible, whole } from "./format.js";

const LONGEST_WORD = 20; // characters: some languages have no spaces, and some models write none

/** @param {import("./demo.js").Demo} demo */
export function mountInfer(demo) {
  const { root, parts, flow } = demo;
  const out = parts.get("out");
  const knobs = [...root.querySelectorAll("[data-knob]")];
  const writeButton = root.querySelector('[data-do="write"]');
  const stopButton = root.querySelector('[data-do="stop-writing"]');
  let shown = null; // the text that is drawn, and how much of it
  let drawn = 0;
  let word = null;

  knobs.forEach((input) => input.addEventListener("input", () => showKnob(input)));
  const seed = root.querySelector('[data-knob="seed"]');
  seed.addEventListener("change", () => { seed.value = String(Math.min(Number(seed.max), Math.max(0, Math.round(Number(seed.value))))); });
  const showKnob = (input) => {
    const output = input.parentElement.querySelector("output");
    const all = input.dataset.knob === "top_k" && input.value === "0";
    if (output) output.textContent = all ? "all" : Number(input.step) < 1 ? Number(input.value).toFixed(2) : input.value;
  };
  const config = () => Object.fromEntries(knobs.map((input) => [input.dataset.knob, Number(input.value)]));
  const write = (prompt) => demo.run(flow.write(prompt, config()));
  const writeOn = () => {
    if (!writeButton.disabled && flow.state.stages.infer.status !== "working") write(parts.get("prompt").value);
  };

  demo.on("write", writeOn);
  demo.on("stop-writing", () => demo.run(flow.ask("stop_generating")));
  demo.on("new-seed", () => {
    seed.value = String(crypto.getRandomValues(new Uint16Array(1))[0]);
  });
  parts.get("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    writeOn();
  });
  out.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    const all = [...out.querySelectorAll("button")];
    const at = all.indexOf(document.activeElement);
    if (!by || at < 0) return;
    event.preventDefault();
    const next = Math.min(all.length - 1, Math.max(0, at + by));
    choose(next);
    all[next].focus();
  });

  function choose(i) {
    out.querySelectorAll("button").forEach((b, j) => {
      b.setAttribute("aria-pressed", String(i === j));
      b.tabIndex = i === j ? 0 : -1;
    });
    drawAlternatives(i);
  }

  function drawAlternatives(i) {
    const token = shown.tokens[i];
    const options = token.alternatives;
    const [before, after] = options.length ? ["In place of ", " it could have written"] : ["How likely ", " was"];
    parts.get("alt-title").replaceChildren(before, el("q", { class: "book", text: visible(token.text) }), after);
    const rows = options.map((a) => {
      const own = a.text === token.text;
      const branch = () => write(shown.prompt + shown.tokens.slice(0, i).map((t) => t.text).join("") + a.text);
      const name = own || !shown.ended ? visible(a.text) : el("button", {
        class: "run__link", type: "button", text: visible(a.text), onclick: branch, "aria-label": `Continue from here with ${visible(a.text)}`,
      });
      return el("tr", {}, el("th", { scope: "row", class: own ? "book better" : "book" }, name), barCell(a.probability, own), el("td", { text: percent(a.probability) }));
    });
    const rest = 1 - options.reduce((sum, a) => sum + a.probability, 0);
    const others = options.length
      ? el("tr", {}, el("th", { scope: "row", class: "muted", text: "all others" }), barCell(rest), el("td", { text: percent(Math.max(0, rest)) }))
      : el("tr", {}, el("th", { scope: "row", class: "book", text: visible(token.text) }), barCell(token.probability, true), el("td", { text: percent(token.probability) }));
    parts.get("alts").replaceChildren(...rows, others);
  }

  /** Adds the tokens that have come since. */
  function drawText(text) {
    if (text !== shown) {
      shown = text;
      drawn = 0;
      word = null;
      out.replaceChildren(el("span", { class: "out__given", text: text.prompt }));
    }
    for (; drawn < text.tokens.length; drawn++) {
      const token = text.tokens[drawn];
      const body = token.text.trim() ? token.text.trim() : visible(token.text);
      const lead = token.text.slice(0, token.text.length - token.text.trimStart().length);
      if (lead || !word || word.textContent.length + body.length > LONGEST_WORD) { // a line never breaks inside a word
        if (token.text.trim()) out.append(lead);
        word = out.appendChild(el("span", { class: "word" }));
      }
      const index = drawn;
      word.append(el("button", {
        class: "tok", type: "button", text: body, title: percent(token.probability), "data-p": grade(token.probability),
        tabindex: drawn ? -1 : 0, onclick: () => choose(index),
      }));
      if (!token.text.trim()) out.append(token.text);
      if (token.text.trimEnd() !== token.text) word = null;
    }
  }

  const alternatives = memo(() => {
    const chosen = out.querySelector('[aria-pressed="true"]');
    if (chosen) drawAlternatives([...out.querySelectorAll("button")].indexOf(chosen));
  });
  const earlier = memo((list) => {
    parts.get("earlier").replaceChildren(...list.map((t) => el("li", {},
      el("p", { class: "book", text: (t.prompt + t.tokens.map((k) => k.text).join("")).replace(/\s+/g, " ") }),
      el("span", { class: "muted num", text: `step ${whole(t.step)}, temperature ${t.config.temperature.toFixed(2)}, seed ${t.config.seed}` }))));
  });

  return {
    update(state) {
      const { text, stages } = state;
      const writing = stages.infer.status === "working";
      writeButton.disabled = !["ready", "done", "working"].includes(stages.infer.status) || !state.run.begun;
      writeButton.ariaDisabled = String(writing); // a button that is disabled in truth loses the focus
      if (!writing && document.activeElement === stopButton) writeButton.focus();
      stopButton.disabled = !writing;
      const from = state.run.begun ? `The model at step ${whole(state.run.step)}` : "Needs a model: press Start";
      parts.put("writer", state.mode === "recorded" ? "Writing needs WebGPU" : from);
      if (state.open !== "infer") return;
      if (text) {
        drawText(text);
        const speed = text.rate ? `, ${figure(text.rate)} tokens/s` : "";
        parts.put("out-note", `${whole(text.tokens.length)} tokens${speed}`);
        if (text.ended) alternatives(text);
      }
      if (state.earlier.length) earlier(state.earlier, state.earlier);
    },
  };
}

const grade = (p) => (p >= 0.5 ? 3 : p >= 0.1 ? 2 : p >= 0.01 ? 1 : 0);
