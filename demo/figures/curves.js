// <tabula-curves>: recorded runs over steps, tokens, time or FLOPs. demo/site/live/curves.py drew what stands there first, and
// says how the drawing is made; what is drawn is fetched when the reader first changes something.
import { duration } from "./numbers.js";

const DATA = new URL("curves.json", import.meta.url);
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 9, RIGHT = 86, TOP = 4, BOTTOM = 88, APART = 7, WIDE = 14, Y_STEP = 0.5; // as in demo/site/live/curves.py
const CLOCK = [1, 10, 60, 600, 3600, 36000, 86400, 864000];

class Curves extends HTMLElement {
  connectedCallback() {
    for (const input of this.querySelectorAll("input")) {
      input.disabled = false;
      input.onchange = () => this.change();
    }
  }

  async change() {
    const status = this.querySelector('[data-part="status"]');
    try {
      this.runs ??= await load();
    } catch (error) {
      status.textContent = `The recorded runs could not be loaded (${error.message}).`;
      return;
    }
    const ticked = [...this.querySelectorAll('[name="run"]:checked')].map((input) => input.value);
    const axis = this.querySelector('[name="axis"]:checked').value;
    const shown = this.runs.filter(({ name }) => ticked.includes(name));
    this.querySelector('[data-part="chart"]').replaceChildren(chart(shown, axis));
    for (const row of this.querySelectorAll("[data-run]")) row.hidden = !ticked.includes(row.dataset.run);
    status.textContent = ticked.length ? `Drawn along ${axis}: ${ticked.join(", ")}.` : "No run is drawn.";
  }
}

async function load() {
  const answer = await fetch(DATA);
  if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
  return answer.json();
}

/** Points (x, bits per byte) of a run. @returns {[number, number][]} */
function along(run, which, axis) {
  if (!run[which].length) return [];
  const [steps, seconds, bits] = run[which];
  const scale = { steps: 1, tokens: run.tokens_per_step, flops: run.flops_per_step }[axis];
  return steps.map((step, i) => [axis === "time" ? seconds[i] : scale * step, bits[i]]);
}

/** The drawing of `runs`; an empty one for none. */
function chart(runs, axis) {
  const lines = runs.map((run) => [run.name, along(run, "training", axis), along(run, "held_out", axis)]);
  const points = lines.flatMap(([, training, held]) => [...training, ...held]);
  const svg = make("svg", { class: "live__chart", "aria-hidden": "true", focusable: "false" });
  if (!points.length) return svg;
  const [xs, ys] = [0, 1].map((i) => points.map((point) => point[i]));
  const [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
  const yLow = Math.floor(Math.min(...ys) / Y_STEP) * Y_STEP;
  const yHigh = Math.ceil(Math.max(...ys) / Y_STEP) * Y_STEP;
  const xOf = (x) => LEFT + ((RIGHT - LEFT) * Math.log(x / xLow)) / Math.log(xHigh / xLow);
  const yOf = (y) => BOTTOM - ((BOTTOM - TOP) * (y - yLow)) / (yHigh - yLow);
  const percent = (n) => `${n.toFixed(2)}%`;
  for (let y = yLow; y <= yHigh; y += Y_STEP) {
    const place = percent(yOf(y));
    svg.append(
      make("line", { x1: `${LEFT}%`, x2: `${RIGHT}%`, y1: place, y2: place }),
      make("text", { x: `${LEFT - 1}%`, y: place, dy: ".35em", "text-anchor": "end" }, y.toFixed(1)),
    );
  }
  for (const [x, text] of ticks(axis, xLow, xHigh)) {
    svg.append(make("text", { x: percent(xOf(x)), y: "97%", "text-anchor": "middle" }, text));
  }
  const drawn = make("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", width: "100%", height: "100%" });
  const path = (points, kind) =>
    make("polyline", { points: points.map(([x, y]) => `${xOf(x).toFixed(2)},${yOf(y).toFixed(2)}`).join(" "), class: kind });
  drawn.append(
    ...lines.map(([, training]) => path(training, "live__training")),
    ...lines.map(([, , held]) => path(held, "live__held")),
  );
  svg.append(drawn);
  for (const [x, y] of lines.flatMap(([, , held]) => held)) {
    svg.append(make("circle", { cx: percent(xOf(x)), cy: percent(yOf(y)), r: "3.5" }));
  }
  const ends = lines.map(([name, training, held]) => {
    const [x, y] = (held.length ? held : training).at(-1);
    return [name, xOf(x), yOf(y)];
  });
  for (const [name, x, y] of spread(ends)) {
    svg.append(make("text", { x: percent(x), y: percent(y), dx: ".6em", dy: ".35em" }, name));
  }
  return svg;
}

/** Where the horizontal axis has marks, and what stands there. @returns {[number, string][]} */
function ticks(axis, low, high) {
  const inside = (x) => low <= x && x <= high;
  if (axis === "time") return CLOCK.filter(inside).map((t) => [t, duration(t)]);
  const exponents = Array.from({ length: 25 }, (_, e) => e).filter((e) => inside(10 ** e));
  const stride = Math.max(1, Math.ceil(exponents.length / 6));
  const chosen = exponents.filter((_, i) => i % stride === 0);
  return chosen.map((e) => [10 ** e, axis === "flops" ? `10${superscript(e)}` : plainly(e)]);
}

/** 1, 10, 100, 1 K, 10 K, … */
const plainly = (exponent) => `${10 ** (exponent % 3)}${["", " K", " M", " B", " T"][Math.floor(exponent / 3)]}`;

const superscript = (n) => [...String(n)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");

/** Names and where their lines end, moved down where two names would touch. */
function spread(ends) {
  const placed = [];
  for (let [name, x, y] of ends.toSorted((a, b) => a[2] - b[2])) {
    for (const [, otherX, otherY] of placed) {
      if (Math.abs(x - otherX) < WIDE) y = Math.max(y, otherY + APART);
    }
    placed.push([name, x, y]);
  }
  return placed;
}

function make(name, attributes, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

if (!customElements.get("tabula-curves")) customElements.define("tabula-curves", Curves);
