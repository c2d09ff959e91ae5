// The part of the Runs sheet with the trained models that come with the site.
import { el, memo } from "./dom.js";
import { bytes, count } from "./format.js";
import { sizeOf } from "./shipped.js";

/** @param {import("./demo.js").Demo} demo */
export function mountShipped(demo) {
  const { parts, flow } = demo;
  demo.on("open-again", () => flow.shipped.again());
  demo.on("dismiss", () => { flow.state.aside = null; });
  demo.on("train-on", () => {
    flow.shipped.trainOn();
    demo.do("add-text");
  });

  const list = memo((models, locked) => {
    parts.get("shipped").replaceChildren(...models.map((entry) => {
      const open = () => {
        parts.get("shipped").closest("dialog").close();
        demo.run(flow.shipped.open(entry));
      };
      return el("li", {}, el("b", { text: entry.title }),
        el("span", { class: "muted num", text: `${count(entry.parameters)} parameters, ${bytes(sizeOf(entry))}. Trained on ${entry.trained.text}.` }),
        el("div", { class: "runs__actions" },
          el("button", { class: "btn btn--small", type: "button", text: "Open", "aria-label": `Open ${entry.title}`, onclick: open, disabled: locked })));
    }));
  });

  return {
    update(state) {
      const { models, note } = state.shipped;
      const locked = ["working", "paused", "looking"].includes(state.phase) || state.mode === "recorded";
      parts.put("shipped-note", models.length && state.mode === "recorded" ? "They run where training is possible." : note);
      list(`${models.map((m) => m.name)} ${locked}`, models, locked);
    },
  };
}
