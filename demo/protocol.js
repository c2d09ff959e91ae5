// What the page and its worker say to each other: every message that there is.
//
// The page sends commands; each has an `id` and gets one reply, {reply: id, result} or {reply: id, error}, where
// the error has the fields of a `trouble`; its kind is "stopped" where a command was asked to end.
// In between and at any time the worker sends events. Trainer events are those of trainer/events.py, as
// `to_json` writes them ({event: "step", step, loss, ...}); the ones below are the page's own.
// demo/protocol.py holds the same lists for the Python side, and a test holds the two together.

/** Command → the fields that it takes (beside `command` and `id`), and what its reply holds. */
export const COMMANDS = {
  // Boots Python and opens the GPU at the same time. Reply: {version, device: Device | null, problem: string}
  boot: ["base", "manifest"],
  // Measures f32 matmul for about 0.3 s. Reply: {gflops}
  measure: [],
  // Times training steps of TINY or another of the trainer's benchmarks on one batch of random tokens, in batches
  // of `steps`, or (null) of as many as take half a second. Reply: {workload, precision, batch, ms_per_step,
  // tokens_per_s, gflops, steps, first_loss, last_loss}
  bench: ["workload", "precision", "steps"],
  // Measures which kernels train a model the fastest, for a few seconds, beside other commands; on a software
  // renderer, and what is known already, with `force` alone. What a run begins with is what is known then.
  // Reply: {measured, faster}, both numbers of ops and shapes
  tune: ["model", "train", "force"],
  // sources: [{kind: "books"} | {kind: "gutenberg", name} | {kind: "text", title, text}]
  // Reply: {documents: [{title, author, bytes, words, licence, source, split}], preview: string,
  // failed: [{name, title, problem}]}; split is "training", "held-out" or, for a single text, "both".
  // What did not arrive is a `trouble` too, and the rest may be used.
  load: ["sources"],
  // The beginning of a document. Reply: {text}
  preview: ["index"],
  // The books that can be fetched. Reply: {books: [{id, repo, title, author, bytes}]}
  library: [],
  // Trains BPE; merges come as `merge` events, at most four times a second. Reply: {vocab, seconds}
  train_tokenizer: ["vocab"],
  // Takes the tokenizer of a kept run in place of a new one. Reply: {vocab}
  use_tokenizer: ["run"],
  // Reply: {tokens: [{id, text}]} (bytes that are no text are shown as ·)
  try_tokenizer: ["text"],
  // Reply: {train_tokens, validation_tokens, bytes_per_token, unigram_entropy, frequent: [{text, count}]}
  tokenize: [],
  // model, train: fields of ModelConfig and TrainConfig, or {preset}. Reply: Budget, or {error} for bad fields
  estimate: ["model", "train"],
  // Begins training, or with `run` continues that run from where it is, else from its last save; `train` holds
  // what is to change then: {steps}, {learning_rate}, {batch}. With `base`, a new run begins from the weights of
  // that run, whose model it has, and whose tokenizer the text must be in. Reply when it has begun: {run, step}
  train: ["model", "train", "run", "base"],
  // Reply when no step is under way any more: {step}
  pause: [],
  resume: [],
  // Ends the training, and whatever of load, train_tokenizer, tokenize and evaluate is under way. Reply: {step}
  stop: [],
  // Tokens come as `token` events. Reply at the end: {count, stopped}
  generate: ["prompt", "config"],
  stop_generating: [],
  // Bits per byte with baselines, and BLiMP pairs; a run that has weights only is evaluated on the text at hand,
  // else on the books. Reply: the report, as trainer/report.py makes it
  evaluate: [],
  // The kept runs. Reply: {runs: [{run, title, step, steps, loss, bytes, date}], quota: {used, available}}
  runs: [],
  // Makes a run the current one. Reply: {run, title, step, steps, model, train, documents, tokens, report, events}:
  // what load and tokenize replied of its text (documents and tokens are null where it is not here), what
  // evaluate replied last, and the run's events from its beginning. Where `train` is null, it has weights only:
  // it is not continued, but another run can begin from it
  open_run: ["run"],
  rename_run: ["run", "title"],
  delete_run: ["run"],
  // Reply: {zip: Uint8Array, name}; import takes the same bytes, or a zip of a native run. Its reply: {run, title}
  export_run: ["run"],
  import_run: ["zip"],
  // Makes a kept run of a model that comes with the site, or finds the one that was made before. `entry` is of
  // the index of models, which lies at `address`. Bytes come as `progress` events of the stage "open", until
  // `stop`. Reply: {run, title}
  open_shipped: ["address", "entry"],
  // The events of a run that another tab trains, up to its last save. Reply: {events}
  look_on: ["run"],
  // Makes this tab the owner of a run that another tab trains; the other one is told, and stops
  take_over: ["run"],
  // Saves now, as on hiding the page. Reply: {step}
  save: [],
};

/** Event → its fields. These come beside the trainer's own events. */
export const EVENTS = {
  // Loading Python: bytes that have arrived
  loading: ["done", "total"],
  // The newest merges of the tokenizer: [{left, right, token}] as text
  merge: ["count", "total", "newest", "bytes_per_token"],
  // One generated token; alternatives: [{text, probability}], the five likeliest
  token: ["id", "text", "probability", "alternatives"],
  // What went wrong beside any command: lost, lost_again, not_finite, quota, network, hash, shipped, other_tab,
  // crash
  // `retry`: seconds to wait before another try, 0 if any will do; null where trying again by itself is no use
  trouble: ["kind", "title", "note", "details", "retry"],
};
