// <tabula-demo>: everything starts when it enters the page and ends when it leaves, so that the site's instant
// navigation needs no care. The markup is demo.html; the worker starts with Start, or with what else needs it.
import { describe } from "../adapter.js";
import { mountA11y } from "./a11y.js";
import { Client } from "./client.js";
import { keep, Parts } from "./dom.js";
import { Flow } from "./flow.js";
import { figure, shortDevice } from "./format.js";
import { half, MODEL_FIELDS, PRECISIONS, PRESETS, same } from "./presets.js";
import { Recordings, Replay, unigramLoss } from "./replay.js";
import { mountSheets } from "./sheets.js";
import { initial, reduce, STAGES } from "./state.js";
import { mountData } from "./view_data.js";
import { mountEval } from "./view_eval.js";
import { mountInfer } from "./view_infer.js";
import { mountRun } from "./view_run.js";
import { mountSettings } from "./view_settings.js";
import { mountShipped } from "./view_shipped.js";
import { mountTokens } from "./view_tokens.js";
import { mountTrain } from "./view_train.js";

const BASE = new URL("..", import.meta.url); // the bundle
const RECORDED = new URL("page/recorded/", BASE); // see replay.js
const PLAYED = "micro"; // the preset whose recorded run plays where no model can be trained
const MODELS = "../../../checkpoints/"; // from the bundle, which demo/hooks.py puts into assets/tabula/VERSION/
const PATIENCE = 500; // ms between two drawings of what changes all the time

export class Demo extends HTMLElement {
  connectedCallback() {
    if (this.views) return;
    this.root = this;
    this.actions = new Map();
    this.compared = []; // evaluated runs whose curves are drawn too
    this.recordings = new Recordings(RECORDED);
    this.ghosts = new Map(); // preset → its recorded run, or null while that comes
    this.parts = new Parts(this);
    this.life = new AbortController();
    this.flow = new Flow({ draw: (soon) => this.draw(soon) });
    const worker = new URL(this.dataset.worker ?? "worker.js", this.dataset.worker ? location.href : BASE);
    this.flow.shipped.address = this.dataset.models ? new URL(this.dataset.models, location.href) : new URL(MODELS, BASE);
    const boot = { base: BASE.href, manifest: new URL("manifest.json", BASE).href };
    this.flow.client = new Client(worker, boot, (event) => this.flow.receive(event));
    this.flow.state.offer = keep.read("last");
    this.flow.state.reports = keep.read("evaluated", []);
    this.listen();
    this.views = [mountRun, mountData, mountTokens, mountTrain, mountSettings, mountInfer, mountEval, mountSheets, mountShipped, mountA11y].map((mount) => mount(this));
    this.readLink();
    this.update();
    this.prepare();
  }

  /** The worker gets the time to save; a page that is gone has nothing to draw. */
  disconnectedCallback() {
    this.life.abort();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    for (const view of this.views) view.end?.();
    this.views = null;
    const { client, state, replay, kept } = this.flow;
    replay?.pause();
    this.flow.tries.stop();
    this.wake?.release().catch(() => {});
    const end = () => {
      client.end();
      kept.close();
    };
    if (state.booted && state.run.begun && !state.run.reason) client.send("save").then(end, end);
    else end();
  }

  listen() {
    const { signal } = this.life;
    const { flow } = this;
    this.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (button) this.do(button.dataset.do);
    }, { signal });
    document.addEventListener("visibilitychange", () => this.onVisible(), { signal });
    addEventListener("pagehide", () => this.save(), { signal });
    this.on("start", () => flow.start());
    this.on("pause", () => flow.pause());
    this.on("resume", () => flow.resume());
    this.on("stop", () => flow.stop());
    this.on("continue", () => flow.kept.continue());
    this.on("afresh", () => {
      keep.write("last", null);
      flow.state.offer = null;
    });
    this.on("longer", () => flow.kept.longer());
    this.on("recover", () => flow.kept.recover());
    this.on("recover-smaller", () => flow.kept.recover({ batch: Math.max(1, (flow.state.run.train.batch ?? 2) >> 1) }));
    this.on("recover-slower", () => flow.kept.recover({ learning_rate: flow.state.run.train.learning_rate / 2 }));
    this.on("retry", () => flow.kept.recover());
    this.on("retry-data", () => flow.fetchAgain());
    this.on("stop-trying", () => flow.tries.stop());
    this.on("use-arrived", () => flow.useArrived());
    this.on("look-on", () => flow.kept.lookOn());
    this.on("take-over", () => flow.kept.takeOver());
    this.on("follow", () => {
      flow.state.followed = true;
      this.open(flow.state.stage, true);
    });
    this.on("again", () => location.reload());
    this.on("what", () => this.do("device"));
  }

  // ---------------------------------------------------------------- actions

  /** @param {string} name @param {() => any} handler */
  on(name, handler) {
    this.actions.set(name, handler);
  }

  do(name) {
    this.run(this.actions.get(name)?.());
    this.draw(false);
  }

  /** Waits for what an action began; what goes wrong with it is told in the run bar, and ends nothing else. */
  async run(promise) {
    try {
      await promise;
    } catch (error) {
      this.flow.tell(error);
    }
  }

  /** Opens a stage; a reader who opens one is no longer led along. */
  open(name, focus = false) {
    const { state } = this.flow;
    const head = this.querySelector(`[data-stage="${name}"] .stage__head button`);
    const before = head.getBoundingClientRect().top;
    state.followed = name === state.stage;
    state.open = name;
    this.update();
    scrollBy(0, head.getBoundingClientRect().top - before); // a stage above it may have closed
    if (focus) head.focus();
  }

  resetCharts() {
    return this.views[3].charts.reset();
  }

  // ---------------------------------------------------------------- drawing

  /** Draws on the next frame; `soon` may wait, so that figures are changed twice a second. */
  draw(soon) {
    if (!this.views) return;
    if (soon) {
      this.timer ??= setTimeout(() => this.draw(false), PATIENCE);
      return;
    }
    this.frame ??= requestAnimationFrame(() => this.update());
  }

  update() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.timer = this.frame = undefined;
    if (!this.views) return;
    const { state } = this.flow;
    for (const view of this.views) view.update(state);
    const { device, peak, mode } = state;
    this.parts.put("device", mode === "recorded" ? "No GPU here" : device ? shortDevice(device.name) : "Device");
    this.parts.put("peak", peak ? `${figure(peak)} GFLOP/s` : "");
    this.keepAwake(state);
  }

  /** The preset's recorded run, where it can be compared: before a run, or under one with the same model. */
  ghost({ mode, device, preset, run }) {
    if (mode === "recorded" || !device) return null; // the device may choose another preset
    if (!this.ghosts.has(preset)) this.fetchGhost(preset);
    const ghost = this.ghosts.get(preset);
    return ghost && (!run.begun || same(ghost.model, run.model)) ? ghost : null;
  }

  async fetchGhost(preset) {
    this.ghosts.set(preset, null);
    const recorded = await this.recordings.of(preset).catch(() => null); // where it does not come, only its curve is missing
    if (recorded) this.ghosts.set(preset, recording(recorded));
    this.draw(false);
  }

  // ---------------------------------------------------------------- the device, the recording, the screen

  /** Asks for an adapter; without one, a recorded run plays. The answer does not wait for the recording's files. */
  async prepare() {
    const { state } = this.flow;
    const gpu = navigator.gpu;
    const adapter = await gpu?.requestAdapter().catch(() => null);
    if (!this.views) return;
    if (adapter) {
      state.device ??= describe(adapter); // till the worker tells more
      const linked = state.train.precision === "mixed"; // by a link that another device made
      if (linked && !half(state.device)) this.flow.settings.set({ precision: "f32" });
      if (state.device.software && !this.linked) this.flow.settings.choose("nano");
    } else {
      this.flow.refuse(gpu ? "adapter" : "webgpu");
    }
    this.update();
    if (location.hash === "#start" && adapter && !state.offer) {
      history.replaceState(history.state, "", location.pathname + location.search); // a reload starts nothing
      this.do("start");
    }
    if (adapter) return;
    const recorded = await this.recordings.of(PLAYED).catch(() => null);
    if (!this.views || !recorded) return;
    state.report = recorded.report;
    this.flow.play(new Replay(recorded.events, (event) => this.flow.receive(event)), recorded);
    this.update();
  }

  /** What a link brings: a stage to open, #data, or settings. (#start waits for the device.) */
  readLink() {
    const stage = location.hash.slice(1);
    if (STAGES.includes(stage)) this.open(stage);
    const given = new URLSearchParams(location.hash.slice(1)).get("settings");
    if (!given) return;
    try {
      const known = [...MODEL_FIELDS, ...Object.keys(PRESETS.nano.train)];
      const fits = (k, v) => (k === "precision" ? PRECISIONS.includes(v) : known.includes(k) && typeof v === "number");
      const entries = Object.entries(JSON.parse(given)).filter(([k, v]) => fits(k, v));
      this.flow.settings.set(Object.fromEntries(entries));
      this.linked = true;
    } catch {
      // a mangled link sets nothing
    }
  }

  save() {
    const { state, client } = this.flow;
    if (state.booted && state.run.begun && !state.run.reason) client.send("save").catch(() => {});
  }

  onVisible() {
    const { state } = this.flow;
    if (!document.hidden) {
      if (this.hiddenPause && state.phase === "paused") this.do("resume");
      this.hiddenPause = false;
      this.draw(false);
      return;
    }
    this.save();
    if (this.parts.get("hidden-pause").checked && state.phase === "working" && state.stage === "train") {
      this.hiddenPause = true;
      this.do("pause");
    }
  }

  /** Keeps the screen on while it trains, if the reader wants that. */
  keepAwake(state) {
    const wanted = this.parts.get("awake").checked && state.phase === "working" && !document.hidden;
    if (wanted === Boolean(this.wake) || !navigator.wakeLock) return;
    const old = this.wake;
    this.wake = undefined;
    if (!wanted) {
      old.release().catch(() => {});
      return;
    }
    this.wake = { release: async () => {} }; // until the browser has answered
    navigator.wakeLock.request("screen").then((lock) => {
      lock.addEventListener("release", () => { if (this.wake === lock) this.wake = undefined; });
      this.wake = lock;
    }, () => {});
  }
}

/** A recording as a run that has ended, for comparison. */
function recording({ events, report }) {
  const state = initial();
  for (const event of events) reduce(state, event);
  state.run.unigram = unigramLoss(report);
  return state.run;
}

if (!customElements.get("tabula-demo")) customElements.define("tabula-demo", Demo);
