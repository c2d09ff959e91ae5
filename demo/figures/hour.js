// <tabula-hour>: the largest model worth training in a time on a machine, by Chinchilla's rule.
import { Dial } from "./dial.js";
import { power, short } from "./numbers.js";
import { MEASURED, ownMachine } from "./own.js";

const OPERATIONS = 6; // a parameter and token
const CHINCHILLA = 20; // tokens a parameter
const LOW = 2e4, HIGH = 5e9; // parameters at the two ends of the line, as in demo/site/live/hour.py
const QUIET = 800; // ms without input until the result is read aloud
const UNITS = [[10080, "week"], [1440, "day"], [60, "hour"], [1, "minute"]];

/** Parameters of the largest model that `flops` can train on 20 tokens a parameter. */
const bestSize = (flops) => Math.sqrt(flops / (OPERATIONS * CHINCHILLA));

const place = (parameters) =>
  `${Math.min(100, Math.max(0, (100 * Math.log(parameters / LOW)) / Math.log(HIGH / LOW))).toFixed(1)}%`;

class Hour extends HTMLElement {
  connectedCallback() {
    this.time = new Dial(this, "minutes", () => this.changed());
    this.select = this.querySelector("select");
    this.select.disabled = false;
    this.select.onchange = () => this.changed();
    this.presets = [...this.querySelectorAll("[data-preset]")].map(({ dataset }) => dataset);
    this.samples = [...this.querySelectorAll("[data-sample]")];
    this.recorded = this.presets.filter(({ preset }) => this.samples.some(({ dataset }) => dataset.sample === preset));
    this.onMeasured = () => this.own();
    document.addEventListener(MEASURED, this.onMeasured);
    this.own();
  }

  disconnectedCallback() {
    document.removeEventListener(MEASURED, this.onMeasured);
    clearTimeout(this.timer);
  }

  /** The reader's machine becomes the one that is chosen, once it is measured. */
  own() {
    const machine = ownMachine();
    if (machine) {
      const option = this.select.querySelector('[value="own"]');
      option.textContent = machine.name;
      option.dataset.rate = String(machine.rate);
      option.disabled = false;
      this.select.value = "own";
    }
    this.draw();
  }

  changed() {
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.querySelector('[data-part="status"]').textContent = this.querySelector('[data-part="sum"]').textContent;
    }, QUIET);
  }

  draw() {
    const rate = Number(this.select.selectedOptions[0].dataset.rate);
    const size = bestSize(rate * 60 * this.time.value);
    const tokens = CHINCHILLA * size;
    this.querySelector('[data-part="sum"]').replaceChildren(
      `${words(this.time.value)}: ${short(size)} parameters, trained on ${short(tokens)} tokens: `,
      ...power(OPERATIONS * size * tokens), " FLOPs",
    );
    this.querySelector(".live__marker").setAttribute("cx", place(size));
    const label = this.querySelector(".live__here");
    label.setAttribute("x", place(size));
    label.textContent = short(size);
    const chosen = this.nearest(size, this.recorded);
    for (const sample of this.samples) sample.hidden = sample.dataset.sample !== chosen;
    for (const row of this.querySelectorAll("[data-seconds]")) {
      const there = bestSize(rate * row.dataset.seconds);
      const texts = [short(there), short(CHINCHILLA * there), this.nearest(there)];
      row.querySelectorAll("td").forEach((cell, i) => { cell.textContent = texts[i]; });
    }
  }

  /** The preset whose size is the nearest, by ratio. */
  nearest(size, among = this.presets) {
    const distance = ({ parameters }) => Math.abs(Math.log(parameters / size));
    return among.reduce((best, next) => (distance(next) < distance(best) ? next : best)).preset;
  }
}

/** 60 → "1 hour"; 90 → "1.5 hours". */
function words(minutes) {
  const [size, unit] = UNITS.find(([size]) => minutes >= size) ?? UNITS.at(-1);
  const n = Number((minutes / size).toPrecision(3));
  return `${n} ${unit}${n === 1 ? "" : "s"}`;
}

if (!customElements.get("tabula-hour")) customElements.define("tabula-hour", Hour);
