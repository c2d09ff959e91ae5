// A worker that needs no Python: it answers the protocol from the recorded run, quickly.
// Its address may ask for trouble: worker.js?trouble=lost stops once, half way; &title=… names the book, &device=… the
// adapter, &problem=… why there is none, &most=… the tokens that its text has pairs for.
const query = new URL(import.meta.url).searchParams;
const LOG = new URL("bundle/page/recorded/nano.jsonl", import.meta.url);
const REPORT = new URL("bundle/page/recorded/nano.report.jsonl", import.meta.url);
const SAVE_EVERY = 100; // steps; a recording has no saves of its own
const TITLE = query.get("title") ?? "Treasure Island";
const DOCUMENTS = [
  { title: TITLE, author: "Robert Louis Stevenson", bytes: 372_000, words: 66_000, licence: "Public domain", source: "books/Treasure-Island_120/120.txt", split: "training" },
  { title: "Black Beauty", author: "Anna Sewell", bytes: 318_205, words: 58_000, licence: "Public domain", source: "books/Black-Beauty_271/271.txt", split: "held-out" },
];
const FREQUENT = [",", " the", ".", " and", " to", " a", " of", "\n"].map((text, i) => ({ text, count: Math.round(60_000 / (i + 1)) }));

const HELD = query.get("hold"); // a command whose answer waits: till the test calls release(), or a stop
let held = null;
let pace = Number(query.get("pace") ?? 0); // ms for ten steps, till the test calls hurry()

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const readLog = async (url) => (await (await fetch(url)).text()).trim().split("\n").map((line) => JSON.parse(line));

/** Training waits for it, as the session's does. */
async function tune() {
  for (let done = 0; done <= 18; done += 6) {
    post({ event: "progress", stage: "tune", done, total: 18, unit: "questions", detail: "" });
    await sleep(300);
  }
  return { measured: 18, faster: 2 };
}

let documents = null; // of the text that is loaded
let tuning = Promise.resolve();
let log = [];
let at = 0;
let state = "idle"; // idle, training, paused
let stopWriting = false;
let troubled = false;
let begun = 1; // the number of the last run that began
const runs = [
  { run: "run-1", title: TITLE, step: 300, steps: 300, loss: 5.1, bytes: 1_400_000, date: "2026-11-20T10:00:00+00:00" },
];

const ANSWERS = {
  async boot() {
    for (let i = 1; i <= 4; i++) {
      post({ event: "loading", done: i * 1_400_000, total: 5_600_000 });
      await sleep(10);
    }
    log = await readLog(LOG);
    const software = query.get("kind") !== "GPU";
    const device = { name: query.get("device") ?? "SwiftShader", backend: "WebGPU", kind: software ? "CPU" : "GPU", driver: "", software, features: ["subgroups"] };
    return { version: "0.1.0", device, problem: query.get("problem") ?? "" };
  },
  measure: () => ({ gflops: 12.5 }),
  tune: () => (tuning = tune()),
  async load({ sources }) {
    if (query.get("trouble") === "too_little") {
      throw { kind: "too_little", title: "Too little text to train on", note: "3 KB given; 20 KB are needed." };
    }
    const own = sources.filter((s) => s.kind === "text").map((s) => ({ ...DOCUMENTS[0], title: s.title, author: "", bytes: s.text.length, licence: "", source: `text:${s.title}`, split: "both" }));
    documents = own.length ? own : DOCUMENTS;
    return { documents, preview: "Squire Trelawney, Dr. Livesey, and the rest of these gentlemen having asked me to write down the whole particulars about Treasure Island…", failed: [] };
  },
  preview: ({ index }) => ({ text: `The beginning of ${DOCUMENTS[index].title}.` }),
  library: () => ({ books: Array.from({ length: 47 }, (_, i) => ({ id: i, repo: `Book_${i}`, title: i === 3 ? "Persuasion" : `Book ${i}`, author: "A. Writer", bytes: 400_000 + i })) }),
  async train_tokenizer({ vocab }) {
    for (let count = 256; count < vocab; count += 128) {
      const newest = ["ca pt", " th e", " wh ale"].map((pair) => {
        const [left, right] = pair.split(/ (?=\S+$)/);
        return { left, right, token: left + right };
      });
      post({ event: "merge", count: Math.min(vocab, count + 128), total: vocab, newest, bytes_per_token: 2.6 });
      await sleep(5);
    }
    const most = Math.min(vocab, Number(query.get("most") ?? vocab));
    if (most < vocab) post({ event: "notice", message: `the text has no pairs for ${vocab} tokens: the vocabulary is ${most}` });
    return { vocab: most, seconds: 1.4 };
  },
  use_tokenizer: () => ({ vocab: 1024 }),
  try_tokenizer: ({ text }) => ({ tokens: (text.match(/\s?\S{1,5}|\s+/g) ?? []).map((piece, i) => ({ id: 300 + i, text: piece })) }),
  async tokenize() {
    for (const done of [1, 2, 3]) post({ event: "progress", stage: "tokenize", done, total: 3, unit: "MB", detail: "" });
    return { train_tokens: 1_071_125, validation_tokens: 116_127, bytes_per_token: 2.72, unigram_entropy: 5.81, frequent: FREQUENT };
  },
  estimate({ model }) {
    if (model.layers > 50) return { error: "too large: choose fewer layers" };
    return { parameters: 108_864, device_memory: 61_000_000, host_memory: 1e8, tokens_per_step: 512, flops_per_step: 3.4e8, total_tokens: 153_600, total_flops: 1.02e11 };
  },
  async train({ run, train }) {
    await tuning;
    if (!run || train.steps) at = 0;
    if (run) troubled = true; // a run that goes on ends well
    const first = { ...log[0], steps: train.steps ?? log[0].steps, train: { ...log[0].train, ...train } };
    const continued = run ? { ...first, step: log[at].step ?? 0 } : first;
    state = "training";
    setTimeout(() => play(continued));
    return { run: run || `run-${++begun}`, step: continued.step };
  },
  pause: () => { state = "paused"; return { step: log[at]?.step ?? 300 }; },
  resume: () => { state = "training"; play(); return {}; },
  stop() {
    if (HELD !== "stop") held?.reject({ kind: "stopped", title: "Stopped" });
    if (state !== "idle") post({ event: "run_ended", step: log[at]?.step ?? 0, reason: "stopped", seconds: 9, detail: "" });
    state = "idle";
    return { step: 0 };
  },
  async generate({ prompt, config }) {
    stopWriting = false;
    const words = [" there", " was", TITLE.startsWith("<") || TITLE.startsWith("书") ? TITLE : " a", " gre", "y", " cat", ",", "\n", " and"];
    const chances = [0.7, 0.3, 0.05, 0.004, 0.6, 0.12, 0.4, 0.2, 0.3];
    let count = 0;
    for (; count < Math.min(config.tokens, 40) && !stopWriting; count++) {
      const i = count % words.length;
      const alternatives = [{ text: words[i], probability: chances[i] }, { text: " other", probability: 0.02 }];
      post({ event: "token", id: count, text: words[i], probability: chances[i], alternatives });
      await sleep(Math.max(4, pace));
    }
    return { count, stopped: stopWriting, prompt };
  },
  stop_generating: () => { stopWriting = true; return {}; },
  async evaluate() {
    post({ event: "progress", stage: "evaluate", done: 1, total: 2, unit: "bytes", detail: "" });
    const [report] = await readLog(REPORT);
    const paradigms = [{ name: "anaphor_number_agreement", field: "", phenomenon: "", accuracy: 0.58, correct: 58, pairs: 100 }];
    return { ...report, blimp: { accuracy: 0.58, fields: {}, phenomena: {}, pairs: 100, available: 1000, limit: 100, split: 0, paradigms } };
  },
  runs: () => ({ runs, quota: { used: 2_800_000, available: 1e9 } }),
  async open_shipped({ entry }) {
    for (let done = 0; done <= 4e6; done += 1e6) {
      post({ event: "progress", stage: "open", done, total: 4e6, unit: "bytes", detail: entry.title });
      await sleep(pace);
      if (query.get("trouble") === "shipped" && done === 2e6 && !troubled) {
        troubled = true;
        throw { kind: "shipped", title: `“${entry.title}” did not arrive`, note: "The server does not answer. What has arrived is kept." };
      }
    }
    return { run: "run-4", title: entry.title };
  },
  open_run: ({ run }) => (run === "run-4" ? {
    run, title: "Micro, on children’s stories", step: 300, steps: null, model: log[0].model, train: null, documents: null, tokens: null, report: null, events: log,
  } : {
    run, title: TITLE, step: 150, steps: 300, model: log[0].model, train: log[0].train, documents, tokens: null, report: null,
    events: log.filter((e, i) => { if ((e.step ?? 0) <= 150) at = i; return (e.step ?? 0) <= 150; }),
  }),
  rename_run({ run, title }) {
    const found = runs.find((r) => r.run === run);
    if (found) found.title = title;
    return {};
  },
  delete_run({ run }) { runs.splice(runs.findIndex((r) => r.run === run), 1); return {}; },
  export_run: () => ({ zip: new Uint8Array([80, 75, 5, 6]), name: "run.zip" }),
  import_run({ zip }) {
    if (!zip.length) throw { kind: "refused", title: "This is no run of Tabula", note: "Export one first." };
    return { run: "run-3", title: "Imported" };
  },
  take_over: () => ({}),
  save: () => ({ step: log[at]?.step ?? 0 }),
};

/** Plays the recorded events while it trains; ten steps at a time. */
async function play(first = null) {
  if (first) post(first);
  at = Math.max(at, 1);
  while (state === "training" && at < log.length) {
    const event = log[at++];
    post(event.event === "sample" && TITLE.startsWith("<") ? { ...event, text: TITLE } : event);
    const full = troubled && query.get("trouble") === "quota";
    if (event.event === "step" && event.step % SAVE_EVERY === 0 && !full) post({ event: "saved", step: event.step, path: "" });
    if (event.event === "step" && event.step % 10 === 0) await sleep(pace);
    if (event.step === 150 && event.event === "step" && query.has("trouble") && !troubled) trouble();
  }
  if (at === log.length) state = "idle";
}

function trouble() {
  troubled = true;
  const kind = query.get("trouble");
  if (kind === "crash") setTimeout(() => { throw new Error("out of memory"); });
  const words = {
    lost: ["The GPU stopped at step 150", "The browser reset it. The run is safe up to step 100; the 3 s since are repeated exactly."],
    quota: ["Storage is full: not saving", "Training goes on. A save needs 13 MB; 4 MB is left. Delete a run, or export this one."],
  }[kind];
  if (!words) return;
  if (kind === "lost") state = "idle";
  post({ event: "trouble", kind, title: words[0], note: words[1], details: "GPUDeviceLostInfo: unknown" });
}

const post = (message) => self.postMessage(message);

self.release = () => held.resolve();
self.hurry = () => { pace = 0; };

self.onmessage = async ({ data: { id, command, ...fields } }) => {
  try {
    if (command === HELD) await new Promise((resolve, reject) => { held = { resolve, reject }; });
    if (command === query.get("refuse")) throw { kind: "refused", title: `${command} is refused`, note: "Ask again." };
    post({ reply: id, result: await ANSWERS[command](fields) });
  } catch (error) {
    post({ reply: id, error: error.kind ? { details: "", ...error } : { kind: "crash", title: String(error), note: "", details: "" } });
  }
};
