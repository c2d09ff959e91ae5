// <tabula-steps>: on the reader's click, the demo's worker trains two small models on this machine and says how long a
// step takes. A second click ends it, with the worker.
import { Client } from "../page/client.js";
import { figure } from "./numbers.js";

const BUNDLE = new URL("../", import.meta.url);
const TIMED = ["TINY", "SMALL"];

class Steps extends HTMLElement {
  connectedCallback() {
    this.button = this.querySelector('[data-act="time"]');
    this.button.disabled = false;
    this.button.onclick = () => (this.client ? this.end("Stopped. ") : this.time());
    this.querySelector('[data-act="copy"]').onclick = () => this.copy();
  }

  disconnectedCallback() {
    this.client?.end();
    this.client = null;
  }

  async time() {
    const { href } = BUNDLE;
    const tell = ({ event, done, total }) => {
      if (event === "loading") this.say(`Loading: ${mb(done)} of ${mb(total)} MB. `);
    };
    const client = new Client(new URL("worker.js", BUNDLE), { base: href, manifest: "manifest.json" }, tell);
    this.client = client;
    this.records = [];
    this.show();
    this.say("Loading. ");
    try {
      const { device, problem } = await client.boot();
      if (!device) throw new Error(problem);
      this.say("Measuring products of matrices. ");
      const { gflops } = await client.send("measure");
      const shares = [];
      for (const workload of TIMED) {
        this.say(`Timing ${workload}. `);
        const timed = await client.send("bench", { workload, precision: "f32", steps: null });
        this.records.push(this.record(timed, device));
        shares.push(`${workload} at ${Math.round((100 * timed.gflops) / gflops)}%`);
        this.show();
      }
      this.end(`Blue: timed here, ${today()}: ${device.name}, f32, ${shares.join(" and ")} of the ${figure(gflops)} GFLOP/s that products of matrices reach. `);
    } catch (error) {
      if (this.client === client) this.end(`It did not work: ${error.message}. `);
    }
  }

  /** As the records of docs/data/peers.json. */
  record({ workload, precision, batch, ms_per_step, tokens_per_s }, { name }) {
    return {
      impl: "tabula", workload, precision, batch,
      ms_per_step: Number(ms_per_step.toPrecision(5)), tokens_per_s: Math.round(tokens_per_s),
      device: name, browser: browser(), machine: `${navigator.hardwareConcurrency} cores`,
      date: today(), commit: this.querySelector("details").dataset.commit, command: "Time steps here, on the page of benchmarks",
    };
  }

  end(words) {
    this.client?.end();
    this.client = null;
    this.say(words);
    this.show();
    this.querySelector('[data-part="status"]').textContent = words;
  }

  say(words) {
    this.querySelector('[data-part="source"]').textContent = words;
  }

  show() {
    for (const row of this.querySelectorAll("[data-row]")) {
      const record = this.records.find(({ workload }) => workload === row.dataset.row);
      const cells = record ? [figure(record.ms_per_step), figure(record.tokens_per_s)] : ["–", "–"];
      row.querySelectorAll("td").forEach((cell, i) => (cell.textContent = cells[i]));
    }
    this.querySelector("details").hidden = !this.records.length;
    this.querySelector('[data-part="json"]').textContent = JSON.stringify(this.records, null, 1);
    this.button.textContent = this.client ? "Stop" : "Time steps here";
  }

  async copy() {
    const copied = await navigator.clipboard?.writeText(JSON.stringify(this.records, null, 1)).then(() => true, () => false);
    this.querySelector('[data-act="copy"]').textContent = copied ? "Copied" : "Select and copy it by hand";
  }
}

const mb = (bytes) => (bytes / 1e6).toFixed(1);
const today = () => new Date().toISOString().slice(0, 10);

/** The browser and its version, such as "Firefox 145.0". */
function browser() {
  const found = /(Firefox|Edg|OPR|Chrome)\/([\d.]+)/.exec(navigator.userAgent) ?? /Version\/([\d.]+).*(Safari)/.exec(navigator.userAgent);
  if (!found) return "unknown browser";
  const [, first, second] = found;
  return second === "Safari" ? `Safari ${first}` : `${{ Edg: "Edge", OPR: "Opera" }[first] ?? first} ${second}`;
}

if (!customElements.get("tabula-steps")) customElements.define("tabula-steps", Steps);
