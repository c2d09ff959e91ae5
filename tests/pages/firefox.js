// The worker in a browser that nobody steers: trains a run to the end, begins it anew, pauses, opens the page a second
// time, goes on, and sends the server what came of it. `job.json` says with what.
import "./session.js";

const { source, vocab, model, train, prompt } = await (await fetch("job.json")).json();
const { send, heard } = window;

const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
};
const losses = () => Object.fromEntries(heard("step").map(({ step, loss }) => [step, loss]));
const forget = () => void window.events.splice(0);

/** Greedily, so that it is the model's alone. */
async function written() {
  await send("generate", { prompt, config: { tokens: 8, temperature: 0 } });
  return heard("token").map(({ text }) => text).join("");
}

/** The losses of a whole run. */
async function trained(train) {
  forget();
  await send("train", { model, train });
  await until(() => heard("run_ended").length);
  return losses();
}

async function firstVisit() {
  const { device } = await window.boot();
  await send("load", { sources: [source] });
  await send("train_tokenizer", { vocab });
  await send("tokenize");
  const whole = await trained(train);
  forget();
  const { run } = await send("train", { model, train });
  const { step } = await window.pauseAt(4);
  sessionStorage.setItem("first", JSON.stringify({ device, whole, run, step, text: await written() }));
  location.reload();
}

async function secondVisit(first) {
  await window.boot();
  const { events } = await send("open_run", { run: first.run });
  window.events.push(...events);
  const again = await written();
  await send("train", { train: {}, run: first.run });
  await until(() => heard("run_ended").length);
  const resumed = losses();
  const evaluated = await send("evaluate");
  const { gflops } = await send("measure");
  await send("load", { sources: [source] });
  await send("train_tokenizer", { vocab });
  await send("tokenize");
  const mixed = await trained({ ...train, precision: "mixed" });
  return { ...first, again, resumed, evaluated, gflops, mixed };
}

async function visit() {
  const first = sessionStorage.getItem("first");
  if (!first) return firstVisit();
  return report(await secondVisit(JSON.parse(first)));
}

const report = (body) => fetch("report", { method: "POST", body: JSON.stringify(body) });

visit().catch((error) => report({ error: String(error.stack ?? error), events: window.events.slice(-5) }));
