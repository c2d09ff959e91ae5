// What happens when: from Start to Evaluation, and all that the reader can do on the way.
import { Trouble } from "./client.js";
import { keep } from "./dom.js";
import { Kept } from "./kept.js";
import { complete, PRESETS, suited } from "./presets.js";
import { unigramLoss } from "./replay.js";
import { Settings } from "./settings.js";
import { Shipped } from "./shipped.js";
import { emptyRun, HARMLESS, initial, mark, outdate, reduce, sameText, STAGES } from "./state.js";
import { Tries } from "./tries.js";
import { presetTitle, sourceTitle } from "./words.js";

export const PREPARATION = ["data", "tokenizer", "tokenize"];
/** Answers of commands that were ended on purpose, or with the worker, which is told anyway. */
const QUIET = new Set(["ended", "stopped"]);
/** Troubles that end the worker, or what it has on the device. */
const GONE = new Set(["lost", "lost_again", "crash"]);
/** What Start says where nothing of the chosen kind is there. */
const NO_TEXT = {
  text: { kind: "too_little", title: "There is no text yet", note: "Paste one or choose files: 20 KB are needed." },
  gutenberg: { kind: "no_books", title: "No book is picked yet", note: "Pick one or more of the library, in Data." },
};
const FREQUENT = new Set(["step", "merge", "token", "progress", "loading"]);

export class Flow {
  /** @param {{draw: (soon: boolean) => void}} page `draw(true)` may wait a moment */
  constructor({ draw }) {
    this.draw = draw;
    this.state = initial();
    this.client = null; // set by the page, which knows where the worker is
    this.replay = null;
    this.turn = 0; // raised by whatever makes an older way through the stages void
    this.onlyData = false; // the way under way ends with the text
    this.sources = [{ kind: "books" }]; // of the text that is chosen; that of state.loaded may be another
    this.kept = new Kept(this);
    this.shipped = new Shipped(this);
    this.tries = new Tries(this);
    this.settings = new Settings(this);
    this.settings.choose(suited(keep.read("peak")?.gflops, false));
  }

  // ---------------------------------------------------------------- messages

  /** Events of the worker, or of the recording. */
  receive(event) {
    const { state } = this;
    reduce(state, event);
    if (event.event === "trouble") this.stopFor(event);
    if (event.event === "run_started") {
      mark(state, "train", state.phase === "paused" ? "paused" : "working"); // see begin
      for (const name of ["infer", "eval"]) mark(state, name, state.mode === "recorded" ? "unavailable" : "ready");
    }
    if (event.event === "saved") this.kept.remember(state.run.reason ? null : event.step); // the last save comes after the end
    if (event.event === "run_ended") this.ended(event);
    this.draw(FREQUENT.has(event.event));
  }

  /** A command and its answer, which the reducer gets too. */
  async ask(command, fields = {}) {
    const result = await this.client.send(command, fields);
    reduce(this.state, { event: "answer", command, result, fields });
    this.draw(false);
    return result;
  }

  async boot() {
    if (this.state.booted) return;
    const result = await this.client.boot();
    reduce(this.state, { event: "answer", command: "boot", result, fields: {} });
    this.draw(false);
  }

  stopFor(trouble) {
    const { state } = this;
    if (HARMLESS.has(trouble.kind)) return;
    this.tries.stop();
    this.turn++;
    Object.assign(state, { phase: "failed", compiling: false, asked: "" });
    for (const name of [...PREPARATION, "train"]) if (state.stages[name].status === "working") mark(state, name, "failed");
    if (GONE.has(trouble.kind)) {
      for (const name of ["infer", "eval"]) mark(state, name, "unavailable");
      if (state.run.begun) mark(state, "train", "failed");
    }
    if (trouble.kind === "crash") state.booted = false;
    if (trouble.kind === "network") this.tries.later(trouble);
  }

  /** An error that ends the way through the stages. Whatever has been ended on purpose is none. */
  fail(error, stage = "") {
    if (error instanceof Trouble && QUIET.has(error.kind)) return;
    if (stage && STAGES.includes(stage)) mark(this.state, stage, "failed");
    this.receive({ ...told(error), usable: false });
  }

  /** An error of a command beside it: it is told, unless its cause is, and all goes on. */
  tell(error) {
    if (error instanceof Trouble && QUIET.has(error.kind)) return;
    if (GONE.has(this.state.trouble?.kind)) return;
    const event = told(error);
    this.receive(HARMLESS.has(event.kind) ? event : { ...event, kind: "beside" });
  }

  /** A stage beside the way has ended without a result. */
  rest(name) {
    if (this.state.stages[name].status === "working") mark(this.state, name, "ready");
  }

  // ---------------------------------------------------------------- the way through the stages

  async start() {
    const { state } = this;
    if (state.rule) return;
    if (!this.sources.length) {
      this.fail(new Trouble(NO_TEXT[state.source]));
      return;
    }
    if (!sameText(this.sources, state.loaded ?? [])) this.outdateText();
    Object.assign(state, { phase: "working", stage: "boot", offer: null, trouble: null, followed: true });
    this.onlyData = false;
    const turn = this.turnOver();
    this.draw(false);
    try {
      await this.boot();
      const kept = keep.read("peak"); // of the last visit, perhaps with another device
      if (kept && kept.device === state.device?.name) state.peak ||= kept.gflops;
      if (!state.peak) await this.stage(turn, "measure", () => this.ask("measure"));
      keep.write("peak", { device: state.device?.name, gflops: state.peak });
      if (!state.device?.software) this.tune(false); // beside the stages before training
      for (const name of PREPARATION) {
        if (state.stages[name].status !== "done") await this.stage(turn, name, () => this.work(name));
      }
      await this.stage(turn, "train", () => this.begin(""));
    } catch (error) {
      if (turn === this.turn) this.fail(error, state.stage);
    }
  }

  /** Measures which kernels are the fastest for the settings; with `force` also what is known already. */
  tune(force) {
    const { state } = this;
    return this.ask("tune", { model: state.model, train: complete(state.train), force }).catch(() => { state.tuning = null; });
  }

  /** Another way through the stages begins: the one before, and what was to come by itself, is void. */
  turnOver() {
    this.tries.stop();
    this.state.tries = 0;
    this.state.aside = null;
    this.opened = false;
    return ++this.turn;
  }

  /** One stage, once the one before is done and unless the reader paused. */
  async stage(turn, name, work) {
    const { state } = this;
    state.next = name;
    await this.gate;
    if (turn !== this.turn) throw new Trouble({ kind: "ended", title: "stopped" });
    state.stage = name;
    if (STAGES.includes(name)) {
      mark(state, name, "working");
      if (state.followed) state.open = name;
    }
    this.draw(false);
    await work();
    if (turn !== this.turn) throw new Trouble({ kind: "ended", title: "stopped" });
    if (PREPARATION.includes(name)) mark(state, name, "done");
    if (name === "data") state.tries = 0;
    this.draw(false);
  }

  async work(name) {
    const { state } = this;
    if (name === "data") return this.ask("load", { sources: this.sources });
    if (name === "tokenizer") {
      Object.assign(state, { merges: [], mergeCount: 0 });
      if (state.base) return this.ask("use_tokenizer", { run: state.base.run });
      return this.ask("train_tokenizer", { vocab: state.model.vocab });
    }
    return this.ask("tokenize");
  }

  /** Begins to train, or with the name of a run goes on with it under some changed settings. */
  async begin(run, changes = {}) {
    const { state } = this;
    const { base } = state;
    if (!run) {
      const title = base ? `${base.title}, then ${sourceTitle(state)}` : `${sourceTitle(state)}, ${presetTitle(state)}`;
      state.run = Object.assign(emptyRun(), { unigram: state.tokens?.unigram_entropy ?? NaN, title });
    }
    state.compiling = true;
    const from = run ? "" : base?.run ?? "";
    await this.ask("train", { model: state.model, train: run ? changes : complete(state.train), run, base: from });
    state.compiling = false;
    if (state.phase === "paused") await this.request("pause"); // since the kernels were compiled
    if (!run) this.client.send("rename_run", { run: state.run.name, title: state.run.title }).catch(() => {});
  }

  ended({ reason, detail }) {
    const { state } = this;
    if (!state.run.begun) return; // it was deleted
    if (reason === "failed") {
      if (!state.trouble) this.receive({ event: "trouble", kind: "", title: "Training stopped", note: detail ?? "", details: "" });
      return;
    }
    mark(state, "train", "done");
    state.phase = "done";
    if (state.mode === "live") {
      this.kept.remember(null);
      if (reason === "finished") this.evaluate();
    }
  }

  async evaluate() {
    const { state } = this;
    const before = state.phase;
    const turn = this.turn;
    mark(state, "eval", "working");
    if (before === "done") Object.assign(state, { phase: "working", stage: "eval" });
    this.draw(false);
    try {
      await this.ask("evaluate");
      mark(state, "eval", "done");
      this.keepReports();
    } catch (error) {
      this.rest("eval");
      this.tell(error);
    }
    if (turn === this.turn && state.stage === "eval") Object.assign(state, { phase: before, stage: "train" });
    this.draw(false);
  }

  keepReports() {
    keep.write("evaluated", this.state.reports);
  }

  // ---------------------------------------------------------------- pause, resume, stop

  async pause() {
    const { state } = this;
    if (state.asked) return;
    if (this.replay) {
      this.replay.pause();
    } else if (state.stage !== "train") {
      this.gate = new Promise((resolve) => { this.open = resolve; });
    } else if (!state.compiling) { // else begin says it to the worker
      await this.request("pause");
      if (state.phase !== "working") return;
    }
    state.phase = "paused";
    if (state.stage === "train") mark(state, "train", "paused");
    this.draw(false);
  }

  /** Asks the worker to hold or to end what is under way, and says so until it has. */
  async request(command) {
    const { state } = this;
    state.asked = command;
    this.draw(false);
    try {
      await this.ask(command);
    } finally {
      state.asked = "";
      this.draw(false);
    }
  }

  async resume() {
    const { state } = this;
    if (state.asked) return;
    if (this.opened) return this.kept.continue(state.run.name);
    state.phase = "working";
    if (this.replay) {
      if (this.replay.ended) state.run = Object.assign(emptyRun(), { unigram: state.run.unigram });
      this.replay.play();
      mark(state, "train", "working");
    } else if (this.open) {
      this.open();
      this.open = this.gate = null;
    } else {
      mark(state, "train", "working");
      if (!state.compiling) await this.ask("resume");
    }
    this.draw(false);
  }

  async stop() {
    const { state } = this;
    if (state.asked) return;
    const { stage, compiling } = state;
    const { opened } = this;
    this.open?.();
    this.open = this.gate = null;
    this.turnOver();
    if (!state.booted) this.client.end();
    else if (!opened) await this.request("stop");
    // By now a run_ended has said the rest, if a run was under way, or a trouble has.
    if (state.stage !== stage || !["working", "paused"].includes(state.phase)) return;
    const { run, stages } = state;
    if (["working", "paused"].includes(stages[stage]?.status)) mark(state, stage, stage === "train" && run.begun ? "done" : "ready");
    Object.assign(state, { phase: run.begun ? "done" : "idle", stage: "", compiling: false });
    this.draw(false);
    if (compiling && run.saved) { // the worker let go of the model to go on with it
      await this.kept.open(run.name, run.title);
      mark(state, "train", "done");
    }
  }

  // ---------------------------------------------------------------- text

  /** Another text: all that was made of the old one is to be made again. */
  outdateText() {
    Object.assign(this.state.stages.data, { status: "ready", old: "" });
    outdate(this.state, "data", "another text");
  }

  async load(sources) {
    const { state } = this;
    this.sources = sources;
    this.outdateText();
    Object.assign(state, { phase: "working", stage: "boot", trouble: null });
    this.onlyData = true;
    const turn = this.turnOver();
    this.draw(false);
    try {
      await this.boot();
      await this.stage(turn, "data", () => this.work("data"));
      Object.assign(state, { phase: "idle", stage: "" });
    } catch (error) {
      if (turn === this.turn) this.fail(error, "data");
    }
    this.draw(false);
  }

  /** Goes on with the books that arrived. */
  useArrived() {
    const { state } = this;
    mark(state, "data", "done");
    if (!this.onlyData) return this.start();
    this.turnOver();
    Object.assign(state, { phase: "idle", stage: "", trouble: null });
  }

  /** Asks for the books again, and goes on as far as was wanted. */
  fetchAgain() {
    return this.onlyData ? this.load(this.sources) : this.start();
  }

  // ---------------------------------------------------------------- writing

  async write(prompt, config) {
    const { state } = this;
    if (state.text) state.earlier = [state.text, ...state.earlier].slice(0, 20);
    const text = { prompt, config, tokens: [], step: state.run.step, began: performance.now(), rate: 0, ended: false };
    state.text = text;
    mark(state, "infer", "working");
    this.draw(false);
    try {
      const { count } = await this.ask("generate", { prompt, config });
      text.rate = count / ((performance.now() - text.began) / 1000);
      mark(state, "infer", "done");
    } catch (error) {
      this.rest("infer");
      this.tell(error);
    }
    text.ended = true;
    this.draw(false);
  }

  // ---------------------------------------------------------------- the recorded run

  /** No model can be trained here: `problem` is adapter, or webgpu where the browser has none. */
  refuse(problem) {
    const { state } = this;
    Object.assign(state, { mode: "recorded", problem });
    for (const name of ["infer", "eval"]) mark(state, name, "unavailable");
  }

  play(replay, { preset, report }) {
    const { state } = this;
    const unigram = unigramLoss(report);
    Object.assign(state, { phase: "working", stage: "train" });
    this.replay = replay;
    for (const name of PREPARATION) mark(state, name, "done");
    const { model, train, train_tokens, validation_tokens } = replay.events[0];
    Object.assign(state, { model: { ...model }, train: { ...train }, preset });
    state.tokens = { train_tokens, validation_tokens, bytes_per_token: NaN, unigram_entropy: unigram, frequent: [] };
    state.run.unigram = unigram;
    replay.play();
    this.draw(false);
  }
}

/** An error as the event that tells of it. */
function told(error) {
  const { title = error.message, note = "", details = String(error.stack ?? ""), kind = "", retry = null } = error;
  return { event: "trouble", kind, title, note, details, retry };
}
