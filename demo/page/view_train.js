// Train: four figures, three charts, the same numbers as a table, and what the model writes.
import { Charts } from "./charts.js";
import { el, memo } from "./dom.js";
import { whole } from "./format.js";
import { heldAt } from "./state.js";
import { figures } from "./words.js";

/** @param {import("./demo.js").Demo} demo */
export function mountTrain(demo) {
  const { root, parts, flow } = demo;
  const charts = new Charts({ loss: parts.get("plot-loss"), rate: parts.get("plot-lr"), norm: parts.get("plot-gn") }, root);
  const sides = [...root.querySelectorAll('input[name="tb-side"]')];
  const list = parts.get("samples");
  const allButton = root.querySelector('[data-do="all-samples"]');
  let held = 0; // samples that wait while the list holds still

  sides.forEach((radio) => radio.addEventListener("change", () => side(radio.value)));
  root.querySelectorAll('input[name="tb-x"]').forEach((radio) => radio.addEventListener("change", () => charts.setAxis(radio.value)));

  function side(page) {
    sides.forEach((radio) => { radio.checked = radio.value === page; });
    root.querySelectorAll("[data-side]").forEach((p) => { p.hidden = p.dataset.side !== page; });
  }
  demo.on("settings", () => {
    demo.open("train");
    side("settings");
    root.querySelector('input[name="tb-preset"]:checked')?.focus();
  });
  demo.on("newer", () => {
    list.scrollTop = 0;
    held = 0;
    drawSamples.call(null, flow.state);
    list.focus();
  });
  demo.on("all-samples", () => { list.dataset.all = ""; });

  const watcher = new ResizeObserver(memoWidth(() => charts.remake()));
  watcher.observe(parts.get("plot-loss"));
  const scheme = new MutationObserver(() => charts.remake());
  scheme.observe(document.body, { attributeFilter: ["data-md-color-scheme"] });

  const began = memo((state) => { if (state.run.begun) side("samples"); });

  function drawSamples(state) {
    const { run } = state;
    const shown = list.children.length;
    if (list.scrollTop > 8 && run.samples.length > shown) {
      held = run.samples.length - shown;
    } else {
      held = 0;
      list.replaceChildren(...run.samples.map((s) => sampleItem(s, run, charts)));
    }
    parts.show("newer", held > 0);
    parts.put("newer", `${held} newer`);
    allButton.hidden = "all" in list.dataset || run.samples.length <= 3;
    const prompt = run.samples[0]?.prompt;
    parts.put("samples-note", prompt ? `The next words after “${prompt}”, first try.` : "Samples come as the model learns, first try.");
  }
  const samples = memo(drawSamples);

  const table = memo((run) => {
    const near = (step) => run.series.smooth[Math.max(0, run.series.step.findLastIndex((s) => s <= Math.max(step, 1)))];
    parts.get("loss-table").replaceChildren(...run.held.toReversed().map((v) => {
      const loss = near(v.step);
      return el("tr", {}, ...[whole(v.step), loss?.toFixed(2) ?? "", v.loss.toFixed(2), whole(Math.exp(v.loss))].map((text) => el("td", { class: "r", text })));
    }));
  });

  return {
    charts,
    update(state) {
      const { run } = state;
      began(`${run.begun} ${run.began}`, state);
      figures(state).forEach(([key, value, unit, note, share], i) => {
        for (const [name, text] of [["k", key], ["v", value], ["u", unit], ["n", note]]) parts.put(name + i, text);
        if (i !== 2) return;
        parts.show("share", Number.isFinite(share));
        if (Number.isFinite(share)) parts.get("share").value = Math.round(100 * share);
      });
      if (state.open !== "train") return;
      samples(`${run.began} ${run.samples.length} ${run.samples[0]?.step}`, state);
      table(`${run.began} ${run.held.length} ${run.held.at(-1)?.step}`, run);
      const ghost = demo.ghost(state);
      parts.show("key-ghost", Boolean(ghost));
      parts.show("key-compared", demo.compared.length > 0);
      parts.show("compared", demo.compared.length > 0);
      parts.put("compared", demo.compared.map(({ letter, name, note }) => `${letter}: ${name}${note && ` (${note})`}`).join("; "));
      parts.put("lr", run.series.rate.length ? run.series.rate.at(-1).toPrecision(2).replace(/\.?0+$/, "") : "");
      parts.put("gn", run.series.norm.at(-1)?.toFixed(2) ?? "");
      parts.show("skipped", run.skipped.length > 0);
      parts.put("skipped", `${run.skipped.length} step${run.skipped.length === 1 ? " was" : "s were"} skipped: the gradient was no number.`);
      const vocab = run.begun ? run.model.vocab : ghost?.model.vocab ?? state.model.vocab;
      const failed = ["lost", "lost_again", "crash"].includes(state.trouble?.kind);
      charts.draw({
        run, ghost, vocab, others: demo.compared,
        unigram: Number.isFinite(run.unigram) ? run.unigram : ghost?.unigram ?? NaN,
        saved: failed && run.saved ? run.saved.step : null,
      });
    },
    end() {
      watcher.disconnect();
      scheme.disconnect();
      charts.close();
    },
  };
}

function sampleItem(sample, run, charts) {
  const held = heldAt(run, sample.step);
  const text = el("p", { class: "book" }, el("span", { class: "samples__given", text: sample.prompt }), sample.text.replace(/\s*\n\s*/g, "\n").trimEnd());
  const point = () => charts.mark(sample.step);
  const leave = () => charts.mark(null);
  return el("li", { onmouseenter: point, onmouseleave: leave },
    el("div", { class: "samples__head" }, el("span", { text: `Step ${whole(sample.step)}` }), el("span", { text: held ? `held-out loss ${held.loss.toFixed(2)}` : "" })),
    text);
}

/** Calls back when the width changes, and not at first. */
function memoWidth(changed) {
  let width = null;
  return ([{ contentRect }]) => {
    const old = width;
    width = contentRect.width;
    if (old !== null && width && old !== width) changed();
  };
}
