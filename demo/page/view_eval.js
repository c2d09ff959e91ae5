// Evaluation: bits per byte beside its baselines, sentence pairs, and runs side by side.
import { barCell, el, memo, row } from "./dom.js";
import { count, duration, whole } from "./format.js";
import { NAMES } from "./presets.js";
import { evaluated as id } from "./state.js";

const LETTERS = "ABCD"; // what curves are called, of as many runs as are compared at most
const UNTRAINED = 8; // bits: a byte that could be any

/** @param {import("./demo.js").Demo} demo */
export function mountEval(demo) {
  const { root, parts, flow } = demo;
  const button = root.querySelector('[data-do="evaluate"]');
  const ticked = new Set(); // a run that is evaluated again is the same one
  const chosen = () => flow.state.reports.filter((r) => ticked.has(id(r)));
  demo.on("evaluate", () => demo.run(flow.evaluate()));

  const report = memo((r) => {
    const { text, blimp } = r;
    const b = text.baselines;
    const lines = [
      ["Any byte, at random", UNTRAINED], ["Any token, at random", b.uniform_bits_per_byte],
      ["Token counts alone", b.unigram_bits_per_byte], ["gzip", b.zlib_bits_per_byte],
      ["This run", text.bits_per_byte, true],
    ];
    parts.get("bpb").replaceChildren(...lines.map(([name, bits, on]) => row(name, [barCell(bits / UNTRAINED, on), bits.toFixed(2)], { class: on ? "better" : "" })));
    parts.put("blimp-note", blimp ? `${Math.round(100 * blimp.accuracy)}% of ${whole(blimp.pairs)} pairs; guessing gets 50%.` : "Not part of this evaluation.");
    if (blimp) parts.get("blimp").replaceChildren(...blimp.paradigms.map((p) => row(p.name.replaceAll("_", " "), [`${p.correct} of ${p.pairs}`])));
  });

  const compare = memo((reports) => {
    const notes = new Map(reports.map((r) => [r, apart(r, reports)]));
    demo.compared = chosen().map((r, i) => ({ letter: LETTERS[i], name: r.name, note: notes.get(r), curve: r.curve }));
    const letters = new Map(chosen().map((r, i) => [r, `${LETTERS[i]} `]));
    parts.get("compare").replaceChildren(...reports.map((r) => {
      const note = notes.get(r);
      const box = el("input", { type: "checkbox", "aria-label": `Compare ${[r.name, note].filter(Boolean).join(", ")}`, onchange: () => tick(r, box) });
      box.checked = letters.has(r);
      const cell = (text, key) => el("td", { class: differs(key) ? "r better" : "r", text });
      return el("tr", {}, el("th", { scope: "row" }, el("label", { class: "tick" }, box,
        el("span", {}, el("b", { text: letters.get(r) }), r.name, el("small", { text: note })))),
        cell(r.bits?.toFixed(2) ?? "–"), cell(r.blimp === undefined ? "–" : `${Math.round(100 * r.blimp)}%`),
        cell(whole(r.step), "step"), cell(count(r.parameters), "parameters"), cell(duration(r.seconds)));
    }));
    demo.draw(false); // the curves
    parts.put("compare-note", reports.length > 1 ? `tick up to ${LETTERS.length}: their curves are drawn under Train` : "");
  });

  function tick(r, box) {
    if (box.checked && chosen().length >= LETTERS.length) box.checked = false;
    ticked[box.checked ? "add" : "delete"](id(r));
    drawCompared();
    parts.get("compare").querySelectorAll("input")[flow.state.reports.indexOf(r)]?.focus(); // the rows are new ones
  }

  function drawCompared() {
    const { reports } = flow.state;
    compare(reports.map((r) => `${id(r)} ${r.name} ${r.bits} ${ticked.has(id(r))}`).join(), reports);
  }

  /** Whether the ticked runs differ in a setting: such are set bold. */
  function differs(key) {
    return Boolean(key) && new Set(chosen().map((r) => r[key])).size > 1;
  }

  return {
    update(state) {
      button.disabled = !["ready", "done"].includes(state.stages.eval.status) || !state.run.begun;
      if (state.report?.text) report(state.report, state.report);
      if (state.reports.length) drawCompared();
    },
  };
}

/** What tells a run from others of its name: settings that differ, and when it was evaluated where these do not. */
function apart(report, reports) {
  const others = reports.filter((r) => r.name === report.name && id(r) !== id(report));
  if (!others.length) return "";
  const settings = (r) => ({ ...r.model, ...r.train });
  const differing = Object.keys(NAMES).filter((key) => others.some((r) => settings(r)[key] !== settings(report)[key]));
  const words = (r) => differing.filter((key) => key in settings(r)).map((key) => `${NAMES[key].toLowerCase()} ${settings(r)[key]}`).join(", ");
  const when = new Date(report.at).toLocaleString("en", { dateStyle: "medium", timeStyle: "medium" });
  const alike = others.some((r) => words(r) === words(report));
  return [words(report), alike && when].filter(Boolean).join(", ");
}
