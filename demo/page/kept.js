// Kept runs: continued, opened to look at, gone on with after a trouble, and watched while another tab trains them.
import { keep } from "./dom.js";
import { PREPARATION } from "./flow.js";
import { FURTHER, PRESETS, same } from "./presets.js";
import { emptyRun, mark, outdate, reduce, sourcesOf } from "./state.js";

/** Troubles after which the worker still knows the run. */
const KNOWN = new Set(["lost", "lost_again", "not_finite"]);
const CHANNEL = "tabula"; // where tabs tell each other of their saves: {saved: run}

/** Whether nothing of a run is left to be trained. */
const over = (run) => run.weightsOnly || run.step >= run.steps;

export class Kept {
  /** @param {import("./flow.js").Flow} flow */
  constructor(flow) {
    this.flow = flow;
    this.tabs = new BroadcastChannel(CHANNEL);
    this.tabs.onmessage = ({ data }) => {
      if (flow.state.phase === "looking" && data.saved === flow.state.run.name) this.look().catch((error) => flow.fail(error));
    };
  }

  close() {
    this.tabs.close();
  }

  /** Opens a kept run and goes on with it; `changes` are settings that help where it failed. */
  async continue(name = this.flow.state.offer?.run, changes = {}) {
    const { flow } = this;
    const { state } = flow;
    const title = state.offer?.title ?? state.run.title;
    Object.assign(state, { phase: "working", stage: "boot", trouble: null, offer: null, compiling: true });
    const turn = flow.turnOver();
    flow.draw(false);
    try {
      await flow.boot();
      await this.open(name, title);
      Object.assign(state.train, changes);
      await flow.stage(turn, "train", () => flow.begin(name, changes));
    } catch (error) {
      if (turn === flow.turn) flow.fail(error, "train");
    }
  }

  /** Reads a kept run: its settings, and the events that its charts are made of. */
  async open(name, title = "") {
    const { flow } = this;
    const { state } = flow;
    const opened = await flow.ask("open_run", { run: name });
    state.run = Object.assign(emptyRun(), { name, title });
    this.replay(opened.events ?? []);
    Object.assign(state.run, { name, title: opened.title || title || name });
    if (opened.model) state.model = { ...opened.model };
    if (opened.train) this.settle(opened.train);
    else this.settleWeights(opened);
    if (opened.documents) this.settleText(opened.documents);
    if (opened.report) state.report = opened.report;
    if (opened.tokens) reduce(state, { event: "answer", command: "tokenize", result: opened.tokens, fields: {} });
    for (const stage of ["infer", "eval"]) mark(state, stage, "ready");
    mark(state, "train", over(state.run) ? "done" : "paused");
    flow.draw(false);
  }

  /** Of a run that can be continued: its settings; what it was made from is done. */
  settle(train) {
    const { state } = this.flow;
    Object.assign(state, { base: null, train: { ...train }, mergeCount: 0 });
    state.preset = Object.keys(PRESETS).find((p) => same(PRESETS[p].model, state.model)) ?? "";
    for (const stage of PREPARATION) mark(state, stage, "done");
  }

  /** Its text, which is thereby the one that is chosen. */
  settleText(documents) {
    const { flow } = this;
    const loaded = sourcesOf(documents);
    flow.sources = loaded;
    Object.assign(flow.state, { documents, loaded, source: loaded[0].kind, preview: "", previewed: 0 });
  }

  /** Of weights alone: the next run begins from them, and its text is to be put into their tokens. */
  settleWeights({ step, model }) {
    const { state } = this.flow;
    const { run } = state;
    Object.assign(state, { base: { run: run.name, title: run.title }, preset: "", train: { ...state.train, ...FURTHER } });
    run.weightsOnly = true;
    if (!run.begun) Object.assign(run, { begun: true, step: step ?? 0, steps: step ?? 0, model, reason: "finished" }); // no log came with them
    outdate(state, "data", "another vocabulary");
  }

  /** The run's events up to its last save. */
  replay(events) {
    const { state } = this.flow;
    for (const event of events) reduce(state, event);
    state.run.saved = { step: state.run.step, at: Date.now() };
  }

  /** A run that was opened to look at: trained, or to be gone on with. */
  show() {
    const { flow } = this;
    const { state } = flow;
    const done = over(state.run);
    Object.assign(state, { phase: done ? "done" : "paused", stage: "train", open: "train", trouble: null, offer: null });
    flow.opened = !done;
    flow.draw(false);
  }

  /** After a trouble: the run from its last save, in a new worker where Python stopped. */
  async recover(changes = {}) {
    const { flow } = this;
    const { state } = flow;
    const { kind } = state.trouble ?? {};
    const { name, saved } = state.run;
    if (kind === "crash") flow.client.end();
    if (name && KNOWN.has(kind)) return this.goOn(name, changes);
    if (name && saved) return this.continue(name, changes);
    for (const stage of PREPARATION) if (!state.booted) mark(state, stage, "ready");
    Object.assign(state.train, changes);
    state.run = emptyRun();
    return flow.start();
  }

  /** Trains a run further that the worker knows. */
  async goOn(name, changes) {
    const { flow } = this;
    const { state } = flow;
    Object.assign(state, { phase: "working", trouble: null });
    Object.assign(state.train, changes);
    const turn = flow.turnOver();
    try {
      await flow.stage(turn, "train", () => flow.begin(name, changes));
    } catch (error) {
      if (turn === flow.turn) flow.fail(error, "train");
    }
  }

  async longer() {
    const { run } = this.flow.state;
    await this.goOn(run.name, { steps: Math.round(run.steps * 1.5) });
  }

  /** What a later visit needs to offer this run, and tabs that look on are told; null forgets it. */
  remember(step) {
    const { state } = this.flow;
    if (state.mode === "recorded") return;
    const { name, title, steps } = state.run;
    if (step === null) keep.write("last", null);
    else if (name) keep.write("last", { run: name, title: title || name, step, steps, at: Date.now() });
    if (name) this.tabs.postMessage({ saved: name });
  }

  /** A deleted run is offered no more, nothing begins from it, and it is not the current one. */
  forget(name) {
    const { flow } = this;
    const { state } = flow;
    if (keep.read("last")?.run === name) keep.write("last", null);
    if (state.base?.run === name) flow.settings.fromNothing();
    if (state.run.name !== name) return;
    flow.turnOver();
    Object.assign(state, { run: emptyRun(), report: null, phase: "idle", stage: "", trouble: null });
    mark(state, "train", "ready");
    for (const stage of ["infer", "eval"]) mark(state, stage, "empty");
  }

  // ---------------------------------------------------------------- another tab

  /** Shows a run that another tab trains: as of its last save, and anew with each one that comes. */
  async lookOn() {
    const { flow } = this;
    const { state } = flow;
    flow.turnOver();
    Object.assign(state, { phase: "looking", stage: "train", open: "train", trouble: null });
    for (const stage of ["train", "infer", "eval"]) mark(state, stage, "unavailable");
    await this.look();
  }

  async look() {
    const { flow } = this;
    const { state } = flow;
    const { name, title, unigram } = state.run;
    const { events } = await flow.client.send("look_on", { run: name });
    if (state.phase !== "looking" || state.run.name !== name) return;
    state.run = Object.assign(emptyRun(), { name, title, unigram });
    this.replay(events);
    if (state.run.reason) {
      mark(state, "train", "done");
      for (const stage of ["infer", "eval"]) mark(state, stage, "ready");
      this.show();
    }
    flow.draw(false);
  }

  /** The other tab is told, and stops; this one goes on from the last save. */
  async takeOver() {
    const { name } = this.flow.state.run;
    await this.flow.ask("take_over", { run: name });
    await this.continue(name);
  }
}
