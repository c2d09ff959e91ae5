// Trained models that come with the site: listed, and opened as kept runs that others can begin from.
import { mark } from "./state.js";

const PATIENCE = 5000; // ms for the list of them, which the kept runs wait for

/** Bytes of a model's files. */
export const sizeOf = (entry) => entry.files.reduce((sum, file) => sum + file.bytes, 0);

export class Shipped {
  /** @param {import("./flow.js").Flow} flow */
  constructor(flow) {
    this.flow = flow;
    this.address = null; // of their folder; set by the page, which knows where it is
    this.wanted = null; // the model that was asked for last
  }

  /** Reads their index, once it is there; a site may come without. */
  async list() {
    const { state } = this.flow;
    if (state.shipped.models.length) return;
    try {
      const answer = await fetch(new URL("index.json", this.address), { cache: "no-cache", signal: AbortSignal.timeout(PATIENCE) });
      const models = answer.ok ? await answer.json() : [];
      state.shipped = { models, note: models.length ? "" : "None came with this site." };
    } catch {
      state.shipped = { models: [], note: "Their list did not arrive. Check the connection, and open Runs again." };
    }
    this.flow.draw(false);
  }

  /** Makes a model of the index the current one, as the kept run that it is or becomes. */
  async open(entry) {
    const { flow } = this;
    const { state } = flow;
    this.wanted = entry;
    const opening = { done: 0, total: sizeOf(entry), detail: entry.title };
    Object.assign(state, { phase: "working", stage: "open", trouble: null, opening });
    const turn = flow.turnOver();
    flow.draw(false);
    try {
      await flow.boot();
      const { run, title } = await flow.ask("open_shipped", { address: this.address.href, entry });
      if (turn !== flow.turn) return;
      await flow.kept.open(run, title);
      flow.kept.show();
      await flow.ask("runs"); // one more, perhaps
    } catch (error) {
      if (turn !== flow.turn) return;
      Object.assign(state, { phase: state.run.begun ? "done" : "idle", stage: "" });
      flow.tell(error);
    }
  }

  again() {
    return this.open(this.wanted);
  }

  /** Start is next, which begins from the open model's weights. */
  trainOn() {
    const { state } = this.flow;
    state.phase = "idle";
    mark(state, "train", "ready");
  }
}
