// <tabula-compute>: on the reader's click, a worker multiplies matrices on one CPU thread and on the GPU. The result
// is kept, so that the figures about time can begin with the reader's own machine.
import { figure } from "./numbers.js";
import { keepMeasured, measured } from "./own.js";

const PLACE = new URL(".", import.meta.url);
const LOW = 0.1, HIGH = 1e5; // GFLOP/s at the two ends of a bar, as in demo/site/live/compute.py

/** How much of a logarithmic bar is filled. */
const share = (gflops) => 100 * Math.min(1, Math.max(0.005, Math.log(gflops / LOW) / Math.log(HIGH / LOW)));

class Compute extends HTMLElement {
  connectedCallback() {
    this.button = this.querySelector("button");
    this.button.disabled = false;
    this.button.onclick = () => this.measure();
    const kept = measured();
    if (kept) this.show(kept);
  }

  disconnectedCallback() {
    this.worker?.terminate();
    this.worker = null;
  }

  measure() {
    if (this.worker) return;
    const result = { date: new Date().toISOString().slice(0, 10) };
    this.worker = new Worker(new URL("compute.worker.js", PLACE), { type: "module" });
    this.worker.onmessage = ({ data: { done, ...part } }) => {
      Object.assign(result, part);
      if (done) this.end(result);
      else this.show(result);
    };
    this.worker.onerror = (event) => {
      this.end({ ...result, problem: event.message || "the measurement could not be loaded" });
    };
    this.show(result);
  }

  end(result) {
    this.worker?.terminate();
    this.worker = null;
    if (result.problem) result = { cpu: result.cpu, date: result.date, problem: result.problem };
    this.show(result);
    this.querySelector('[data-part="status"]').textContent = summary(result);
    if (result.cpu) keepMeasured(result);
  }

  show(result) {
    for (const row of this.querySelectorAll("[data-row]")) {
      const gflops = result[row.dataset.row];
      row.querySelector("rect").setAttribute("width", `${gflops ? share(gflops).toFixed(1) : 0}%`);
      row.querySelector(".r").textContent = gflops ? figure(gflops) : "–";
    }
    this.button.disabled = Boolean(this.worker);
    this.button.textContent = this.worker ? "Measuring" : "Measure again";
    this.querySelector('[data-part="source"]').textContent = source(result);
  }
}

function source({ cpu, synced, device, size, date, problem }) {
  if (problem) return `Measured here: one CPU thread${cpu ? `, ${date}` : ""}. No GPU: ${problem}. `;
  if (!synced) return "Measuring. ";
  return `Blue: measured here, ${date}: ${device}, f32, ${size} × ${size}. `;
}

function summary({ cpu, naive, tuned, synced, problem }) {
  if (problem) return cpu ? `Measured one CPU thread: ${figure(cpu)} GFLOP/s. No GPU: ${problem}.` : problem;
  return `Measured, in GFLOP/s: one CPU thread ${figure(cpu)}, naive kernel ${figure(naive)}, `
    + `tuned kernel ${figure(tuned)}, read back each time ${figure(synced)}.`;
}

if (!customElements.get("tabula-compute")) customElements.define("tabula-compute", Compute);
