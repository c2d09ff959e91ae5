// What the run bar and the six heads say, for every state. Words only: nothing here touches the document.
import { about, ago, bytes, count, duration, figure, shortDevice, whole } from "./format.js";
import { expectedSeconds, flops, parameters, PRESETS } from "./presets.js";
import { heldAt, pace, STAGES } from "./state.js";

export const NAMES = {
  data: "Data", tokenizer: "Tokenizer", tokenize: "Tokenize", train: "Train", infer: "Inference", eval: "Evaluation",
};
const WORDS = {
  empty: "Waiting", ready: "Ready", working: "Working", paused: "Paused", done: "Done", failed: "Stopped",
  unavailable: "Not now",
};
/** Playback never passes for the reader's own run. */
const RECORDED = { ...WORDS, working: "Playing", done: "Recorded" };

/** What the worker was asked for, and is still at. */
const ASKED = { pause: "Pausing, as soon as the step under way is done.", stop: "Stopping, as soon as what is under way lets it." };

const SOFTWARE_SLOWER = "It works, about 50 times slower, on the smallest model.";
const action = (label, does) => ({ label, does });

/** What a trouble offers; its own title and note come from the worker where it wrote them. */
const TROUBLES = {
  lost: { actions: [action("Continue", "recover"), action("Details", "details")] },
  lost_again: { actions: [action("Continue with half the batch", "recover-smaller"), action("Details", "details")] },
  quota: { actions: [action("Manage runs", "runs"), action("Export", "export")] },
  network: { actions: [action("Use the others", "use-arrived"), action("Try now", "retry-data")] },
  hash: { actions: [action("Try again", "retry-data"), action("Leave out", "use-arrived")] },
  no_books: { actions: [action("Pick books", "pick-books")] },
  too_little: { actions: [action("Add text", "add-text")] },
  not_finite: { actions: [action("Continue at half the rate", "recover-slower"), action("Details", "details")] },
  other_tab: { actions: [action("Take over", "take-over"), action("Look on", "look-on")] },
  crash: { actions: [action("Restart", "recover"), action("Details", "details")] },
  shipped: { actions: [action("Try again", "open-again"), action("Leave it", "dismiss")] },
  beside: { actions: [action("Dismiss", "dismiss"), action("Details", "details")] },
};

const KINDLESS = { actions: [action("Try again", "retry"), action("Details", "details")] };

/** The kind of the text that is loaded, else of the one that is chosen. */
const textKind = (state) => state.loaded?.[0].kind ?? state.source;

/** How the text of this run is called in titles. */
export function sourceTitle(state) {
  if (textKind(state) === "books") return "Ten books";
  const n = state.documents.length;
  return n === 1 ? state.documents[0].title : `${n} ${textKind(state) === "text" ? "texts" : "books"}`;
}

const kindOf = ({ device }) => (device?.software ? "processor" : "GPU");

export const presetTitle = (state) => PRESETS[state.preset]?.name.toLowerCase() ?? "own settings";

/** Seconds that training is expected to take: from its pace, or the measured peak. */
export function expected(state) {
  return expectedSeconds(state.model, state.train, state.peak);
}

export function timeLeft(state) {
  const { run } = state;
  return run.series.step.length < 20 ? NaN : (run.steps - run.step) * pace(run);
}

/** @returns {{status: string, title: string, note: string, actions: {label: string, does: string}[], bar: number}} */
export function runBar(state, now = Date.now()) {
  if (state.aside && state.mode === "live") return asideBar(state);
  if (state.trouble && state.mode === "live") return troubleBar(state, now);
  if (state.mode === "recorded") return recordedBar(state);
  const bar = liveBar(state, now);
  return state.asked ? { ...bar, note: ASKED[state.asked] } : bar;
}

function liveBar(state, now) {
  const { run, phase } = state;
  const bar = progress(state);
  if (state.offer && phase === "idle") {
    const { title, step, steps, at } = state.offer;
    return {
      status: "paused", bar: (100 * step) / steps, title: `Continue “${title}”?`,
      note: `Saved at step ${whole(step)} of ${whole(steps)}, ${ago((now - at) / 1000)}.`,
      actions: [action("Continue", "continue"), action("Start afresh", "afresh")],
    };
  }
  if (phase === "idle") return state.rule ? { ...idleBar(state), note: `${state.rule.rule}.` } : idleBar(state);
  if (phase === "paused") {
    if (!run.begun) {
      return { status: "paused", bar, title: `Paused before ${NAMES[state.next] ?? "the next stage"}`, note: "What is done stays.", actions: [action("Resume", "resume"), action("Stop", "stop")] };
    }
    return {
      status: "paused", bar, title: `Paused at step ${whole(run.step)}`,
      note: `${run.saved ? "Saved. " : ""}Writing and evaluation use the model as it is now.`,
      actions: [action("Resume", "resume"), action("Stop", "stop")],
    };
  }
  if (phase === "done") return doneBar(state);
  if (phase === "looking") {
    return {
      status: "unavailable", bar, title: `Looking on: step ${whole(run.step)} of ${whole(run.steps)}`,
      note: "Another tab trains this run. Each save of it is shown here.", actions: [action("Take over", "take-over")],
    };
  }
  return workingBar(state, bar, now);
}

function idleBar(state) {
  const seconds = expected(state);
  const time = Number.isFinite(seconds) ? `, about ${about(seconds)} in all` : "";
  const size = `${count(parameters(state.model))} parameters${time}. `;
  const actions = [action("Start", "start"), action("Settings", "settings")];
  if (state.base) {
    const note = `${whole(state.train.steps)} steps${time}, from its weights and in its vocabulary. A preset in Settings begins from nothing.`;
    return { status: "ready", bar: 0, actions, title: `Ready to train “${state.base.title}” further`, note };
  }
  if (state.device?.software) {
    return { status: "ready", bar: 0, actions, title: "Training on the processor, not a GPU", note: SOFTWARE_SLOWER };
  }
  return { status: "ready", bar: 0, actions, title: "Ready to train on this device", note: `${size}Nothing you read or write leaves this tab.` };
}

function workingBar(state, bar, now) {
  const { run, stage, stages } = state;
  const stop = action("Stop", "stop");
  const actions = stage === "open" ? [stop] : [action("Pause", "pause"), stop];
  const left = Number.isFinite(expected(state)) ? ` About ${about(expected(state))} left in all.` : "";
  const step = `Step ${STAGES.indexOf(stage) + 1} of 6.${left}`;
  if (!state.booted) {
    const { done, total } = state.loading ?? { done: 0, total: 0 };
    const title = total && done < total ? `Loading Python: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB` : "Starting Python";
    return { status: "working", bar, title, note: "Kept by the browser for the next visit.", actions };
  }
  if (stage === "open") return openingBar(state.opening, actions);
  if (stage === "measure") return { status: "working", bar, title: `Measuring this ${kindOf(state)}`, note: "A third of a second.", actions };
  if (stage === "data") {
    const f = state.fetching;
    const title = f && f.total ? `Fetching books: ${whole(f.done)} of ${whole(f.total)}` : "Reading the books";
    return { status: "working", bar, title, note: step, actions };
  }
  if (stage === "tokenizer") {
    return { status: "working", bar, note: step, actions, title: `Learning a vocabulary: ${whole(state.mergeCount)} of ${whole(state.model.vocab)} tokens` };
  }
  if (stage === "tokenize") return { status: "working", bar, title: `Turning text into tokens${share(stages.tokenize)}`, note: step, actions };
  if (stages.eval.status === "working") {
    const note = stage === "eval" ? "Bits per byte, beside what gzip makes of the same text." : "Training waits until that is done.";
    return { status: "working", bar, title: `Evaluating on held-out text${share(stages.eval)}`, note, actions: stage === "eval" ? [stop] : actions };
  }
  const seconds = timeLeft(state);
  const saved = run.saved ? ` Saved ${ago((now - run.saved.at) / 1000)}.` : "";
  return {
    status: "working", bar, actions,
    title: run.begun && !state.compiling ? `Training: step ${whole(run.step)} of ${whole(run.steps)}` : state.tuning ? "Measuring the kernels" : "Compiling the kernels",
    note: run.begun && !state.compiling ? `${Number.isFinite(seconds) ? `${duration(seconds)} left.` : "Measuring the time left."}${saved} You may leave this tab; training goes on.` : step,
  };
}

/** A trained model comes, and is then read. */
function openingBar({ done, total, detail }, actions) {
  const parts = `${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
  const title = done < total ? `Fetching “${detail}”: ${parts}` : `Opening “${detail}”`;
  return { status: "working", bar: (100 * done) / total, title, note: "Kept by the browser for the next time.", actions };
}

const share = ({ done, total }) => (total ? `: ${Math.floor((100 * done) / total)}%` : "");

function doneBar(state) {
  const { run } = state;
  if (run.weightsOnly) {
    return {
      status: "done", bar: 100, title: `“${run.title}” is open`, note: "It writes in Inference. Give it a text of yours, and it learns from that, too.",
      actions: [action("Train on your text", "train-on"), action("Export", "export")],
    };
  }
  const title = run.reason !== "finished" && run.step < run.steps ? `Stopped at step ${whole(run.step)} of ${whole(run.steps)}` : `Trained: ${whole(run.steps)} steps in ${duration(run.seconds)}`;
  const note = run.saved ? `Saved in this browser as “${run.title || run.name}”.` : "Kept in this tab.";
  return { status: "done", bar: 100, title, note, actions: [action("Train longer", "longer"), action("Export", "export")] };
}

function recordedBar(state) {
  const playing = state.phase === "working";
  const { run } = state;
  const from = run.device.software ? `a processor (${shortDevice(run.device.name ?? "")})` : `an ${shortDevice(run.device.name ?? "GPU")}`;
  const where = run.begun ? `Shown: a run recorded on ${from}. ` : "";
  const [title, note] = state.problem === "adapter"
    ? ["The browser found no usable GPU", "It may be blocked, or its driver too old. A recorded run plays."]
    : ["No WebGPU in this browser", `${where}Chrome or Edge 113, Safari 26, Firefox 145 and newer can train.`];
  const control = playing ? action("Pause", "pause") : action(state.phase === "done" ? "Play again" : "Play", "resume");
  const controls = state.phase === "idle" ? [] : [control]; // before the recording has come
  const again = state.problem === "adapter" ? [action("Try again", "again")] : [];
  const actions = [...controls, ...again, action("What to do", "what")].slice(0, 2); // which the device's sheet says, too
  return { status: "unavailable", bar: progress(state), title, note, actions };
}

function asideBar(state) {
  const { kind, title, note } = state.aside;
  return { status: "failed", bar: progress(state), title, note, actions: TROUBLES[kind].actions };
}

function troubleBar(state, now) {
  const { trouble, run } = state;
  const known = TROUBLES[trouble.kind] ?? KINDLESS;
  const safe = run.saved ? `The run is safe up to step ${whole(run.saved.step)}.` : "Nothing was saved yet: it starts anew.";
  const titles = {
    lost: `The GPU stopped at step ${whole(run.step)}`, lost_again: "The GPU stopped again",
    crash: "Python stopped",
  };
  const notes = {
    lost: `The browser reset it. ${safe}`, lost_again: "A smaller batch is easier on it.", crash: safe,
  };
  const note = trouble.note || notes[trouble.kind] || "";
  return {
    status: "failed", bar: progress(state), title: trouble.title || titles[trouble.kind] || "It stopped",
    note: [note, nextTry(state, now)].filter(Boolean).join(" "), actions: labelled(state, offered(state, known.actions)),
  };
}

/** When books are asked for again, or why they are not. */
function nextTry({ trouble, nextTry: at }, now) {
  if (at) return `Next try in ${duration(Math.max(1, Math.ceil((at - now) / 1000)))}.`;
  return trouble.retry > 60 ? `It wants us to wait ${duration(trouble.retry)}.` : "";
}

/** Where nothing arrived, there is nothing to go on with. */
function offered({ trouble, nextTry: at }, actions) {
  if (trouble.usable !== false || !actions.some((a) => a.does === "use-arrived")) return actions;
  const other = at ? action("Stop trying", "stop-trying") : action("Details", "details");
  return [...actions.filter((a) => a.does !== "use-arrived"), other];
}

/** Remedies that name their number: the batch, the learning rate, the books that arrived. */
function labelled(state, actions) {
  const { batch, learning_rate: rate } = { ...state.train, ...state.run.train };
  const labels = {
    "recover-smaller": `Continue with batch ${Math.max(1, batch >> 1)}`,
    "recover-slower": `Continue at ${rate / 2}`,
    "use-arrived": state.trouble.kind === "network" ? `Use the ${state.documents.length}` : undefined,
  };
  return actions.map((a) => ({ ...a, label: labels[a.does] ?? a.label }));
}

/** How much of the whole run is done, 0 to 100: nearly all of it is training. */
function progress(state) {
  const { run, stages } = state;
  if (run.begun) return 5 + (95 * run.step) / Math.max(1, run.steps);
  return ["data", "tokenizer", "tokenize"].filter((name) => stages[name].status === "done").length * 1.6;
}

/** @returns {{status: string, word: string, value: string, note: string, progress: number | null, say: string}} */
export function head(state, name) {
  const s = state.stages[name];
  const words = state.mode === "recorded" ? RECORDED : WORDS;
  const [value, now, why] = HEADS[name](state, s);
  const say = why || (s.status === "ready" ? "" : s.notice);
  const note = s.status === "ready" && s.old && name !== "tokenizer" ? `from ${s.old}` : now;
  const part = s.status === "working" || s.status === "paused" || (s.status === "failed" && name === "train");
  return { status: s.status, word: words[s.status], value, note, progress: part && s.total ? (100 * s.done) / s.total : null, say };
}

const took = (s) => (s.seconds ? `in ${duration(s.seconds)}` : "");

/** Of a stage: the figure, what it is of, and why it cannot be used now. */
const HEADS = {
  data(state, s) {
    const total = state.documents.reduce((sum, d) => sum + d.bytes, 0);
    if (s.status === "done" && total) {
      const unit = textKind(state) === "text" ? "text" : "book";
      const n = state.documents.length;
      return [`${n} ${unit}${n === 1 ? "" : "s"}`, `${bytes(total)} ${took(s)}`];
    }
    if (s.status === "working" && s.total) return [`${whole(s.done)} of ${whole(s.total)} books`, s.detail || ""];
    return { books: ["10 books", "3.6 MB, shipped"], gutenberg: ["Library", "pick books"], text: ["Your text", "paste or files"] }[state.source];
  },
  tokenizer(state, s) {
    if (s.status === "working") return [`${whole(state.mergeCount)} tokens`, `of ${whole(state.model.vocab)}`];
    if (state.base) return [`${whole(state.model.vocab)} tokens`, "the model’s own"];
    const learned = s.status === "done" && state.mergeCount; // fewer than were asked for, if the text has no more
    return [`${whole(learned || (state.model.vocab ?? 0))} tokens`, s.status === "done" ? took(s) : s.old ? "to be learned again" : ""];
  },
  tokenize(state, s) {
    const { tokens } = state;
    if (s.status === "working") return ["Working", s.total ? `${Math.floor((100 * s.done) / s.total)}%` : ""];
    if (!tokens) return ["Text as numbers", ""];
    return [`${count(tokens.train_tokens + tokens.validation_tokens)} tokens`, took(s)];
  },
  train(state, s) {
    const { run } = state;
    const loss = run.series.smooth.at(-1);
    if (!run.begun || loss === undefined) {
      const seconds = expected(state);
      if (state.tuning) return [`${whole(state.train.steps ?? 0)} steps`, `kernels: ${whole(state.tuning.done)} of ${whole(state.tuning.total)}`];
      return [`${whole(state.train.steps ?? 0)} steps`, Number.isFinite(seconds) ? `about ${about(seconds)}` : ""];
    }
    if (s.status === "done") return [`Loss ${loss.toFixed(2)}`, `${whole(run.step)} steps, ${duration(run.seconds)}`];
    if (s.status === "failed") return [`Loss ${loss.toFixed(2)}`, `stopped at step ${whole(run.step)}`];
    return [`Loss ${loss.toFixed(2)}`, `step ${whole(run.step)} of ${whole(run.steps)}`, state.phase === "looking" ? ELSEWHERE : ""];
  },
  infer(state, s) {
    if (s.status === "unavailable") {
      const [value, note, say] = unavailable(state);
      return [value, state.mode === "recorded" ? "its samples are in Train" : note, say];
    }
    if (!state.run.begun) return ["Needs a model", "comes with training"];
    if (state.text?.rate) return [`${figure(state.text.rate)} tokens/s`, `step ${whole(state.text.step)}`];
    return [`Step ${whole(state.run.step)}`, state.stages.train.status === "working" ? "Write pauses training" : "try it"];
  },
  eval(state, s) {
    if (s.status === "unavailable") return unavailable(state);
    const text = state.report?.text;
    if (text && s.status !== "working") {
      return [`${text.bits_per_byte.toFixed(2)} bits/byte`, `gzip makes ${text.baselines.zlib_bits_per_byte.toFixed(2)}`];
    }
    if (s.status === "working") return ["Working", s.total ? `${Math.floor((100 * s.done) / s.total)}%` : ""];
    return state.run.begun ? [`Step ${whole(state.run.step)}`, "at the end, by itself"] : ["Needs a model", "comes with training"];
  },
};

const ELSEWHERE = "Another tab trains this run. This is back after Take over.";

function unavailable(state) {
  if (state.phase === "looking") return ["In another tab", "back after Take over", ELSEWHERE];
  if (state.mode === "recorded") return ["Needs WebGPU", "recorded results inside", "Needs WebGPU: this browser plays a recorded run."];
  return ["GPU stopped", "back after Continue", "The GPU stopped. This is back after Continue."];
}

/** The four figures of training: [name, value, unit, note, share of the peak]. */
export function figures(state) {
  const { run, model, peak } = state;
  if (!run.begun) return before(state, model, peak);
  const { series } = run;
  const loss = series.smooth.at(-1);
  const held = heldAt(run, run.step);
  const perSecond = 1 / pace(run);
  const rate = (perSecond * run.flopsPerStep) / 1e9;
  const at = peak && state.mode === "live" ? rate / peak : NaN;
  const seconds = timeLeft(state);
  const over = run.reason !== "" || run.step >= run.steps;
  const read = `${count(series.tokens.at(-1) ?? 0)} tokens read`;
  const whose = Number.isFinite(at) ? `${Math.round(100 * at)}% of this ${kindOf(state)}’s measured ${figure(peak)}` : state.mode === "recorded" ? "as recorded" : "of training itself";
  return [
    ["Guessing among", loss === undefined ? "–" : whole(Math.exp(loss)), "tokens", `${whole(run.model.vocab ?? 0)} at the start${held ? `; held-out ${whole(Math.exp(held.loss))}` : ""}`],
    ["Speed", perSecond > 0 ? figure(perSecond * run.tokensPerStep) : "–", "tokens/s", perSecond > 0 ? `${figure(perSecond)} steps/s` : "measuring"],
    ["Compute", perSecond > 0 ? figure(rate) : "–", "GFLOP/s", perSecond > 0 ? whose : "measuring", at],
    over ? ["Time", duration(run.seconds), "", read] : ["Time left", Number.isFinite(seconds) ? duration(seconds) : "measuring", "", `${duration(run.seconds)} so far; ${read}`],
  ];
}

function before(state, model, peak) {
  const seconds = expected(state);
  const steps = whole(state.train.steps ?? 0);
  const perSecond = state.train.steps / seconds;
  const tokens = (state.train.batch ?? 0) * (state.train.accumulate ?? 1) * (model.context ?? 0);
  return [
    ["Starts guessing among", whole(model.vocab ?? 0), "tokens", "the whole vocabulary"],
    peak ? ["Speed, expected", figure(perSecond * tokens), "tokens/s", `${figure(perSecond)} steps/s`] : ["Speed", "–", "tokens/s", "measured on Start"],
    peak ? [`This ${kindOf(state)}, measured`, figure(peak), "GFLOP/s", "training should reach about 35%", 0.35] : ["Compute", figure(flops(model, state.train) / 1e12), "TFLOP in all", `this ${kindOf(state)} is measured on Start`],
    ["Time, expected", peak ? about(seconds) : "–", "", `${steps} steps`],
  ];
}
