// What the page knows, and the one reducer that messages change it through: trainer events, the page's own events
// (demo/protocol.js), answers to commands ({event: "answer", command, result}) and what the reader does.
// The state is changed in place, because a run's series grow by thousands of points; views read it when they draw.

export const STAGES = ["data", "tokenizer", "tokenize", "train", "infer", "eval"];
/** Troubles under which all goes on. */
export const HARMLESS = new Set(["quota", "shipped", "beside"]);
const KEPT_MERGES = 12;
const CURVE = 200; // points of a run's loss that its report keeps
const SLOWEST = 0.02; // share of a new loss in the smoothed one, once the run is long

/** @typedef {{status: string, done: number, total: number, seconds: number, began: number, old: string, notice: string}} Stage */

/** @returns {Stage} */
const stage = (status) => ({ status, done: 0, total: 0, seconds: 0, began: 0, old: "", notice: "" });

export function emptyRun() {
  return {
    name: "", title: "", begun: false, began: 0, step: 0, steps: 0, parameters: 0, tokensPerStep: 0, flopsPerStep: 0,
    model: {}, train: {}, device: {}, unigram: NaN,
    series: { step: [], loss: [], smooth: [], rate: [], norm: [], tokens: [], seconds: [] },
    held: [], samples: [], skipped: [], saved: null, reason: "", seconds: 0,
    weightsOnly: false, // it cannot be continued, but another run can begin from it
  };
}

export function initial() {
  return {
    mode: "live", // or "recorded"
    phase: "idle", // idle, working, paused, done, failed, looking (on, while another tab trains)
    stage: "", // the one that works
    device: null, problem: "", peak: 0, loading: null, booted: false, compiling: false,
    asked: "", // pause or stop, while the worker is at it
    tuning: null, kernels: null, // how far the measuring of kernels is, and what it found
    preset: "micro", model: {}, train: {}, rule: null, budget: null,
    source: "books", // which kind of text is chosen; flow.sources say which
    loaded: null, // the sources of the text that the worker has, whose documents these are
    library: null, fetching: null,
    documents: [], preview: "", previewed: 0,
    merges: [], mergeCount: 0, bytesPerToken: 0, pieces: null,
    tokens: null,
    run: emptyRun(),
    text: null, earlier: [],
    report: null, reports: [],
    runs: null, quota: null,
    offer: null, // a run that may be continued
    shipped: { models: [], note: "" }, // trained models that come with the site
    opening: null, // how much of one has come
    base: null, // {run, title} whose weights the next run begins from
    trouble: null, // what ended the way through the stages
    aside: null, // what went wrong beside it, and is told while all goes on
    nextTry: 0, tries: 0, // when books are asked for again by themselves (ms since 1970), and how often they were
    open: "train", followed: true,
    stages: {
      data: stage("ready"), tokenizer: stage("ready"), tokenize: stage("ready"), train: stage("ready"),
      infer: stage("empty"), eval: stage("empty"),
    },
  };
}

/** @param {ReturnType<typeof initial>} state @param {Object<string, any>} message */
export function reduce(state, message) {
  REDUCERS[message.event]?.(state, message);
  return state;
}

/** The status of a stage; the time that it has been working is counted here. */
export function mark(state, name, status, now = performance.now()) {
  const s = state.stages[name];
  if (status === "working" && s.status !== "working") s.began = now;
  if (s.status === "working" && status !== "working") s.seconds = (now - s.began) / 1000;
  if (status === "working" && !["working", "paused"].includes(s.status)) s.notice = "";
  if (status === "working") s.old = "";
  s.status = status;
}

/** Stages after `name` are to be done again; what they made, of `what`, stays until it is replaced. */
export function outdate(state, name, what) {
  for (const later of STAGES.slice(STAGES.indexOf(name) + 1)) {
    const s = state.stages[later];
    if (s.status === "done") Object.assign(s, { status: "ready", old: what });
  }
}

/** Whether two lists of sources are of the same text. */
export function sameText(a, b) {
  const same = (x, y) => x.kind === y.kind && x.name === y.name && x.title === y.title && x.text === y.text;
  return a.length === b.length && a.every((x, i) => same(x, b[i]));
}

/** The sources of a kept run's text, of which the page has the documents only: enough to tell what it is. */
export function sourcesOf([{ source }]) {
  const kind = source.startsWith("books/") ? "books" : source.startsWith("https:") ? "gutenberg" : "text";
  return [{ kind }];
}

/** Adds a step to the run's series; steps that a continued run repeats replace the earlier ones. */
function addStep(run, e) {
  const { series } = run;
  cut(run, e.step - 1);
  if (e.skipped || !Number.isFinite(e.loss)) {
    run.skipped.push(e.step);
  } else {
    const n = series.smooth.length;
    const before = n ? series.smooth[n - 1] : e.loss;
    series.step.push(e.step);
    series.loss.push(e.loss);
    series.smooth.push(before + Math.max(SLOWEST, 1 / (1 + n / 10)) * (e.loss - before));
    series.rate.push(e.learning_rate);
    series.norm.push(e.gradient_norm);
    series.tokens.push(e.tokens);
    series.seconds.push(e.seconds);
  }
  run.step = e.step;
  run.seconds = e.seconds;
}

/** Drops what was recorded after `step`. */
function cut(run, step) {
  const { series } = run;
  if (run.step <= step) return;
  let n = series.step.length;
  while (n && series.step[n - 1] > step) n--;
  for (const values of Object.values(series)) values.length = n;
  run.held = run.held.filter((v) => v.step <= step);
  run.samples = run.samples.filter((s) => s.step <= step);
  run.skipped = run.skipped.filter((s) => s <= step);
  run.step = step;
}

/** The newest validation at or before `step`. */
export const heldAt = (run, step) => run.held.findLast((v) => v.step <= step);

/** Median seconds a step over the last 50, or NaN. */
export function pace(run) {
  const { step, seconds } = run.series;
  const n = step.length;
  const paces = [];
  for (let i = Math.max(1, n - 50); i < n; i++) {
    const dt = (seconds[i] - seconds[i - 1]) / (step[i] - step[i - 1]);
    if (dt >= 0) paces.push(dt);
  }
  if (!paces.length) return NaN;
  // Steps that are read together carry equal times: the mean of a window is the steadier figure there.
  const first = Math.max(0, n - 50);
  const mean = (seconds[n - 1] - seconds[first]) / (step[n - 1] - step[first]);
  const middle = paces.toSorted((a, b) => a - b)[paces.length >> 1];
  return middle > mean / 3 ? middle : mean;
}

const ANSWERS = {
  boot(state, { device, problem, version }) {
    Object.assign(state, { booted: true, loading: null, problem: state.problem || (problem ?? ""), version }); // the page's own finding is the clearer
    if (device) state.device = device;
  },
  measure: (state, { gflops }) => { state.peak = gflops; },
  tune(state, { measured, faster }) {
    state.tuning = null;
    if (measured) state.kernels = { measured, faster };
  },
  load(state, { documents, preview }, { sources }) {
    Object.assign(state, { documents, preview, previewed: 0, fetching: null, loaded: sources });
  },
  preview: (state, { text }, { index }) => Object.assign(state, { preview: text, previewed: index }),
  library: (state, { books }) => { state.library = books; },
  train_tokenizer: (state, { vocab }) => { state.mergeCount = vocab; },
  use_tokenizer: (state, { vocab }) => { state.mergeCount = vocab; },
  try_tokenizer: (state, { tokens }) => { state.pieces = tokens; },
  tokenize(state, result) {
    state.tokens = result;
    state.run.unigram = result.unigram_entropy;
  },
  estimate(state, { error, ...budget }) {
    if (error) state.rule = { field: "", rule: error };
    else state.budget = budget;
  },
  train(state, { run, step }) {
    state.run.name = run;
    state.run.step = Math.max(state.run.step, step);
  },
  evaluate(state, report) {
    state.report = report;
    const { run } = state;
    const { step, seconds, smooth } = run.series;
    const entry = {
      run: run.name, name: run.title || run.name || "This run", step: run.step, seconds: run.seconds, at: Date.now(),
      parameters: report.parameters, model: report.model, train: run.train,
      bits: report.text?.bits_per_byte, blimp: report.blimp?.accuracy,
      curve: { steps: thin(step, smooth, CURVE), time: thin(seconds, smooth, CURVE) },
    };
    state.reports = [entry, ...state.reports.filter((r) => evaluated(r) !== evaluated(entry))].slice(0, 12);
  },
  runs: (state, { runs, quota }) => Object.assign(state, { runs, quota }),
  save: (state, { step }) => { state.run.saved = { step, at: Date.now() }; },
};

/** Which state of which run a report is of: runs may share a name. */
export const evaluated = (report) => `${report.run} ${report.step}`;

/** At most `most` of the points (x, y), evenly spread, the last among them. */
export function thin(x, y, most) {
  const stride = Math.max(1, Math.ceil(x.length / most));
  const chosen = x.map((_, i) => i).filter((i) => (x.length - 1 - i) % stride === 0);
  return [chosen.map((i) => x[i]), chosen.map((i) => y[i])];
}

const REDUCERS = {
  answer: (state, { command, result, fields }) => ANSWERS[command]?.(state, result, fields),
  loading: (state, { done, total }) => { state.loading = { done, total }; },
  merge(state, e) {
    Object.assign(state, { mergeCount: e.count, bytesPerToken: e.bytes_per_token });
    const newest = e.newest.toReversed().map((m, i) => ({ ...m, number: e.count - i }));
    state.merges = [...newest, ...state.merges].slice(0, KEPT_MERGES);
    Object.assign(state.stages.tokenizer, { done: e.count, total: e.total });
  },
  progress(state, e) {
    if (e.stage === "open") state.opening = e;
    if (e.stage === "tune") state.tuning = e;
    const name = { fetch: "data", "train-tokenizer": "tokenizer", tokenize: "tokenize", evaluate: "eval" }[e.stage];
    if (!name) return;
    Object.assign(state.stages[name], { done: e.done, total: e.total, unit: e.unit, detail: e.detail });
    if (name === "data") state.fetching = e;
  },
  run_started(state, e) {
    const { run } = state;
    if (e.step === 0) Object.assign(run, { ...emptyRun(), name: run.name, title: run.title, unigram: run.unigram });
    else cut(run, e.step);
    Object.assign(run, {
      begun: true, began: e.time, steps: e.steps, parameters: e.parameters, tokensPerStep: e.tokens_per_step,
      flopsPerStep: e.flops_per_step, model: e.model, train: e.train, device: e.device, reason: "",
      trainTokens: e.train_tokens, validationTokens: e.validation_tokens,
    });
    run.step = e.step;
    Object.assign(state, { trouble: null, aside: null, compiling: false });
  },
  step(state, e) {
    addStep(state.run, e);
    Object.assign(state.stages.train, { done: e.step, total: state.run.steps });
  },
  validation(state, e) {
    const { run } = state;
    run.held = [...run.held.filter((v) => v.step < e.step), { ...e, seconds: run.seconds }];
  },
  sample(state, e) {
    state.run.samples = [e, ...state.run.samples.filter((s) => s.step < e.step)];
  },
  saved(state, e) {
    state.run.saved = { step: e.step, at: Date.now() };
    if (state.aside?.kind === "quota") state.aside = null;
  },
  notice(state, { message }) {
    const stage = state.stages[state.stage];
    if (stage) stage.notice = `${message[0].toUpperCase()}${message.slice(1)}.`;
  },
  run_ended(state, e) {
    Object.assign(state.run, { reason: e.reason, seconds: e.seconds || state.run.seconds, detail: e.detail });
    if (state.aside?.kind !== "quota") state.aside = null;
  },
  token(state, e) {
    state.text?.tokens.push(e);
  },
  trouble(state, e) {
    if (HARMLESS.has(e.kind)) state.aside = e;
    else Object.assign(state, { trouble: e, aside: null });
  },
};
