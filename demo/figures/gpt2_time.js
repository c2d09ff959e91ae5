// <tabula-gpt2-time>: time and rent of training by machine, for the model that the reader sets.
import { Dial } from "./dial.js";
import { dollars, duration, figure, power, short } from "./numbers.js";
import { MEASURED, ownMachine } from "./own.js";

const OPERATIONS = 6; // a parameter and token
const QUIET = 800; // ms without input until the sum is read aloud

class Gpt2Time extends HTMLElement {
  connectedCallback() {
    const dial = (name) => new Dial(this, name, () => this.changed());
    [this.parameters, this.tokens, this.utilisation] = ["parameters", "tokens", "utilisation"].map(dial);
    this.presets = [...this.querySelectorAll('[name="model"]')];
    for (const preset of this.presets) {
      preset.disabled = false;
      preset.onchange = () => this.choose(preset);
    }
    this.onMeasured = () => this.draw();
    document.addEventListener(MEASURED, this.onMeasured);
    this.draw();
  }

  disconnectedCallback() {
    document.removeEventListener(MEASURED, this.onMeasured);
    clearTimeout(this.timer);
  }

  choose(preset) {
    const { parameters, tokens } = size(preset);
    this.parameters.set(parameters / 1e6);
    this.tokens.set(tokens / 1e9);
    this.draw();
    this.say();
  }

  /** Moved by hand: no preset any more, unless it comes to one. */
  changed() {
    const dials = this.dialled();
    for (const preset of this.presets) {
      const { parameters, tokens } = size(preset);
      preset.checked = near(parameters, dials.parameters) && near(tokens, dials.tokens);
    }
    this.draw();
    this.say();
  }

  dialled() {
    return { parameters: 1e6 * this.parameters.value, tokens: 1e9 * this.tokens.value };
  }

  /** The chosen preset to the digit, or what the dials show. */
  current() {
    const chosen = this.presets.find((preset) => preset.checked);
    return chosen ? size(chosen) : this.dialled();
  }

  draw() {
    const { parameters, tokens } = this.current();
    const flops = OPERATIONS * parameters * tokens;
    this.querySelector('[data-part="sum"]').replaceChildren(
      `6 × ${short(parameters)} × ${short(tokens)} = `, ...power(flops), " FLOPs",
    );
    this.own();
    for (const row of this.querySelectorAll("[data-tflops]")) {
      const { tflops, peak, rent } = row.dataset;
      const rate = 1e12 * tflops * (peak === undefined ? 1 : this.utilisation.value / 100);
      const seconds = flops / rate;
      const texts = [figure(rate / 1e12), duration(seconds), rent ? dollars((seconds / 3600) * rent) : "–"];
      row.querySelectorAll("td").forEach((cell, i) => { cell.textContent = texts[i]; });
    }
  }

  /** The reader's own row, once there is a rate to put there. */
  own() {
    const machine = ownMachine();
    if (!machine) return;
    const row = this.querySelector('[data-row="own"]');
    row.querySelector("th").textContent = machine.name;
    row.dataset.tflops = String(machine.rate / 1e12);
  }

  /** Reads the sum and the first time aloud, once the reader has stopped. */
  say() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const row = this.querySelector("[data-tflops]");
      const [, time] = row.querySelectorAll("td");
      const { parameters, tokens } = this.current();
      this.querySelector('[data-part="status"]').textContent =
        `${short(OPERATIONS * parameters * tokens)} FLOPs. ${row.querySelector("th").textContent}: ${time.textContent}.`;
    }, QUIET);
  }
}

/** What a preset stands for. @returns {{parameters: number, tokens: number}} */
function size(preset) {
  const [parameters, tokens] = preset.value.split(",").map(Number);
  return { parameters, tokens };
}

/** Whether two numbers are the same to four digits, which is what a field shows. */
const near = (a, b) => Math.abs(a / b - 1) < 5e-4;

if (!customElements.get("tabula-gpt2-time")) customElements.define("tabula-gpt2-time", Gpt2Time);
