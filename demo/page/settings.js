// The settings of the next run: presets, single fields, the rules that they keep, and what they cost.
import { broken, complete, MODEL_FIELDS, PRESETS, same } from "./presets.js";
import { mark, outdate } from "./state.js";

/** Troubles that other settings may end. */
const CURABLE = new Set(["refused", "too_little", "no_books", ""]);

export class Settings {
  /** @param {import("./flow.js").Flow} flow */
  constructor(flow) {
    this.flow = flow;
  }

  choose(preset) {
    const { state } = this.flow;
    const { model, train } = PRESETS[preset];
    this.fromNothing();
    Object.assign(state, { preset, budget: null });
    this.set({ ...model, ...train });
    state.preset = preset;
  }

  /** The next run begins from no other's weights, and learns a vocabulary of its own. */
  fromNothing() {
    const { state } = this.flow;
    if (!state.base) return;
    state.base = null;
    outdate(state, "data", "another vocabulary");
  }

  /** Settings of the form; a change of the vocabulary makes the tokenizer's stage ready again. */
  set(values) {
    const { state } = this.flow;
    const vocab = state.model.vocab;
    for (const [name, value] of Object.entries(values)) {
      (MODEL_FIELDS.includes(name) ? state.model : state.train)[name] = value;
    }
    state.preset = Object.keys(PRESETS).find((p) => same(PRESETS[p].model, state.model) && same(PRESETS[p].train, state.train)) ?? "";
    state.rule = broken(state.model, state.train);
    if (vocab !== undefined && vocab !== state.model.vocab) outdate(state, "data", "an older vocabulary");
    if (state.phase === "done" || (state.phase === "failed" && CURABLE.has(state.trouble?.kind))) {
      Object.assign(state, { phase: "idle", trouble: null });
      mark(state, "train", "ready");
    }
    this.estimate();
    this.flow.draw(false);
  }

  /** The true costs, from the trainer, once it is there and no setting has changed for a moment. */
  estimate() {
    const { state } = this.flow;
    state.budget = null;
    clearTimeout(this.asking);
    if (!state.booted || state.rule || state.phase === "working") return;
    this.asking = setTimeout(() => {
      this.flow.ask("estimate", { model: state.model, train: complete(state.train) }).catch((error) => this.flow.tell(error));
    }, 300);
  }
}
