// The three charts of training, drawn by uPlot in the page's colours.
// Blue is the model learning, orange is held-out text, grey is a yardstick or a recording.
import uPlot from "./vendor/uplot.js";
import { figure, whole } from "./format.js";
import { thin } from "./state.js";

const POINTS = 600; // drawn of a line at most: a run's series may be many times as long
const FONT = '13px "Tabula Sans", sans-serif';
const SMALL = '"Tabula Sans", sans-serif';

export class Charts {
  /**
   * @param {{loss: HTMLElement, rate: HTMLElement, norm: HTMLElement}} places
   * @param {HTMLElement} root whose CSS variables hold the colours
   */
  constructor(places, root) {
    Object.assign(this, { places, root });
    this.axis = "steps";
    this.marked = null; // a step that the reader points at
    this.zoomed = false;
    this.plots = [];
    this.input = null;
  }

  /**
   * Draws a run, `ghost` (a recorded run, dashed) and `others` (evaluated runs, grey, each with its letter).
   * @param {{run: any, ghost: any, others: any[], vocab: number, unigram: number, saved: number | null}} input
   */
  draw(input) {
    this.input = input;
    if (!this.places.loss.clientWidth) return; // not on show
    if (!this.plots.length || this.made !== this.shape(input)) this.make();
    const tables = this.tables();
    this.plots.forEach((plot, i) => {
      if (this.zoomed) {
        const { min, max } = plot.scales.x;
        plot.setData(tables[i], false);
        plot.setScale("x", { min, max });
      } else {
        plot.setData(tables[i]);
      }
    });
  }

  /** Colours or sizes have changed. */
  remake() {
    this.close();
    if (this.input) this.draw(this.input);
  }

  close() {
    this.plots.forEach((plot) => plot.destroy());
    this.plots = [];
  }

  mark(step) {
    this.marked = step;
    this.plots[0]?.redraw(false);
  }

  /** The whole run again. Tells whether it was zoomed. */
  reset() {
    const was = this.zoomed;
    this.zoomed = false;
    if (was) this.draw(this.input);
    return was;
  }

  setAxis(axis) {
    this.axis = axis;
    this.zoomed = false;
    if (this.input) this.draw(this.input);
  }

  shape({ others }) {
    return others.length;
  }

  x(run) {
    return this.axis === "time" ? run.series.seconds : run.series.step;
  }

  /** Where the horizontal axis ends. */
  span() {
    const { run, ghost } = this.input;
    const shown = run.begun ? run : ghost;
    if (!shown) return 1;
    const { series, steps } = shown;
    const last = this.x(shown).at(-1) ?? 0;
    if (this.axis === "steps") return steps || last || 1;
    const done = series.step.at(-1) ?? 0;
    return done ? Math.max(last, (last / done) * steps) : 1;
  }

  tables() {
    const { run, ghost, others } = this.input;
    const of = (shown, key) => (shown ? thin(this.x(shown), shown.series[key], POINTS) : [[], []]);
    const heldX = (v) => (this.axis === "time" ? v.seconds : v.step);
    const [rawX, raw] = of(run, "loss");
    const loss = uPlot.join([
      of(ghost, "smooth"),
      [rawX, raw, of(run, "smooth")[1]],
      [run.held.map(heldX), run.held.map((v) => v.loss)],
      ...others.map((r) => r.curve[this.axis]),
    ].map(unique));
    const scaled = ([x, y]) => [x, y.map((v) => v * 1000)];
    const rate = uPlot.join([scaled(this.schedule(POINTS)), scaled(of(run, "rate"))].map(unique));
    const norm = uPlot.join([of(ghost, "norm"), of(run, "norm")].map(unique));
    return [loss, rate, norm];
  }

  /** The learning rate of the whole run, as planned. */
  schedule(points) {
    const { run, ghost } = this.input;
    const { train, steps } = run.begun ? run : ghost ?? run;
    if (!steps || !train.learning_rate || this.axis === "time") return [[], []];
    const stride = Math.max(1, Math.ceil(steps / points));
    const xs = Array.from({ length: Math.ceil(steps / stride) + 1 }, (_, i) => Math.min(steps, i * stride));
    const low = train.min_learning_rate ?? 0.1;
    const rate = (s) => {
      if (s < train.warmup) return s / train.warmup;
      const part = (s - train.warmup) / Math.max(1, steps - train.warmup);
      return low + (1 - low) * 0.5 * (1 + Math.cos(Math.PI * part));
    };
    return [xs, xs.map((s) => rate(s) * train.learning_rate)];
  }

  make() {
    this.close();
    this.made = this.shape(this.input);
    const css = (name) => getComputedStyle(this.root).getPropertyValue(name).trim();
    this.ink = css("--tb-muted");
    this.line = css("--tb-line");
    this.edge = css("--tb-edge");
    this.train = css("--md-accent-fg-color");
    this.val = css("--tb-val");
    this.bad = css("--tb-bad");
    this.paper = css("--md-default-bg-color");
    const dashed = { stroke: this.edge, width: 1.5, dash: [5, 4], spanGaps: true, points: { show: false } };
    const solid = (stroke, width) => ({ stroke, width, spanGaps: true, points: { show: false } });
    const tables = this.tables();
    this.plots = [
      this.plot(this.places.loss, tables[0], [
        dashed, solid(`${this.train}66`, 1), solid(this.train, 2.2),
        { ...solid(this.val, 1.5), points: { show: true, size: 7, fill: this.val, stroke: this.paper, width: 1.5 } },
        ...this.input.others.map(() => solid(this.edge, 1.5)),
      ], (u, low, high) => this.lossRange(low, high), 32, [(u) => this.overLoss(u)]),
      this.plot(this.places.rate, tables[1], [dashed, solid(this.train, 1.8)], (u, low, high) => [0, (high || 1) * 1.15], 20),
      this.plot(this.places.norm, tables[2], [dashed, solid(this.train, 1.8)], (u, low, high) => [0, (high || 1) * 1.1], 20),
    ];
  }

  lossRange(low, high) {
    const top = Math.max(high ?? 0, Math.log(this.input.vocab || 2));
    return [Math.max(0, Math.floor(Math.min(low ?? top, top * 0.6 + 0.3) - 0.3)), Math.ceil(top * 4 + 0.6) / 4];
  }

  plot(place, data, series, range, space, draw = []) {
    const axis = { stroke: this.ink, font: FONT, ticks: { show: false }, gap: 6 };
    return new uPlot({
      width: place.clientWidth,
      height: place.clientHeight,
      padding: [8, 22, 0, 0],
      legend: { show: false },
      cursor: { show: true, x: false, y: false, points: { show: false }, drag: { x: true, y: false, setScale: true } },
      scales: {
        x: { time: false, range: (u, low, high) => (this.zoomed ? [low, high] : [0, this.span()]) },
        y: { range },
      },
      axes: [
        { ...axis, size: 26, space: 70, grid: { show: false }, values: (_, ticks) => ticks.map((v) => this.tick(v)) },
        { ...axis, size: 36, space, grid: { stroke: this.line, width: 1 }, values: (_, ticks) => ticks.map(String) },
      ],
      series: [{}, ...series],
      hooks: { draw, setSelect: [(u) => { this.zoomed = u.select.width > 0; }] },
    }, data, place);
  }

  tick(value) {
    if (this.axis === "steps") return Number.isInteger(value) ? whole(value) : "";
    return value >= 120 ? `${figure(value / 60).replace(/\.0+$/, "")} min` : `${value} s`;
  }

  /** Yardsticks, the last value at the line's end, marked steps. */
  overLoss(u) {
    const { run, vocab, unigram, saved, ghost, others } = this.input;
    this.yardstick(u, Math.log(vocab), "guessing blind");
    this.yardstick(u, unigram, "knowing frequencies only");
    for (const step of run.skipped) this.upright(u, this.at(run, step), "", this.bad, 8);
    if (saved !== null) this.upright(u, this.at(run, saved), `saved at ${whole(saved)}`, this.bad);
    if (this.marked !== null) this.upright(u, this.at(run.begun ? run : ghost, this.marked), `step ${whole(this.marked)}`, this.train);
    others.forEach((other, i) => this.letter(u, other, i));
    this.lastValue(u, run);
  }

  /** Where a step is on the horizontal axis. */
  at(run, step) {
    if (this.axis === "steps" || !run) return step;
    const i = run.series.step.findIndex((s) => s >= step);
    return run.series.seconds.at(i) ?? 0;
  }

  yardstick(u, y, text) {
    if (!Number.isFinite(y) || y < u.scales.y.min) return;
    const { ctx, bbox } = u, r = devicePixelRatio, py = u.valToPos(y, "y", true), right = bbox.left + bbox.width;
    ctx.save();
    Object.assign(ctx, { strokeStyle: this.edge, lineWidth: r });
    ctx.setLineDash([2 * r, 3 * r]);
    path(ctx, bbox.left, py, right, py);
    ctx.setLineDash([]);
    Object.assign(ctx, { fillStyle: this.ink, font: `${12.5 * r}px ${SMALL}`, textAlign: "right", textBaseline: "bottom", lineWidth: 4 * r, strokeStyle: this.paper });
    haloed(ctx, text, right, py - 2 * r);
    ctx.restore();
  }

  upright(u, x, text, colour, height = 0) {
    const { ctx, bbox } = u, r = devicePixelRatio, px = u.valToPos(x, "x", true);
    if (px < bbox.left || px > bbox.left + bbox.width) return;
    const bottom = bbox.top + bbox.height;
    const left = px > bbox.left + bbox.width * 0.75;
    ctx.save();
    Object.assign(ctx, { strokeStyle: colour, lineWidth: 1.5 * r, fillStyle: colour, font: `600 ${12.5 * r}px ${SMALL}`, textBaseline: "bottom", textAlign: left ? "right" : "left" });
    path(ctx, px, height ? bottom - height * r : bbox.top, px, bottom);
    ctx.fillText(text, px + (left ? -6 : 6) * r, bottom - 8 * r);
    ctx.restore();
  }

  /** What a curve is called, near its end: beside the letters of others, as curves may end alike. */
  letter(u, { letter, curve }, i) {
    const { ctx, bbox } = u, r = devicePixelRatio;
    const [xs, ys] = curve[this.axis];
    const place = (at) => u.valToPos(at, "x", true);
    const end = Math.min(place(xs.at(-1) ?? NaN), bbox.left + bbox.width) - (8 + 18 * i) * r;
    const last = xs.findLastIndex((at) => place(at) <= end);
    if (last < 0) return;
    const x = place(xs[last]), y = u.valToPos(ys[last], "y", true);
    ctx.save();
    Object.assign(ctx, { fillStyle: this.ink, strokeStyle: this.paper, lineWidth: 4 * r, font: `600 ${12.5 * r}px ${SMALL}`, textAlign: "center", textBaseline: "bottom" });
    haloed(ctx, letter, x, y - 2 * r);
    ctx.restore();
  }

  lastValue(u, run) {
    const value = run.series.smooth.at(-1);
    if (value === undefined) return;
    const { ctx, bbox } = u, r = devicePixelRatio;
    const x = u.valToPos(this.x(run).at(-1), "x", true), y = u.valToPos(value, "y", true);
    if (x < bbox.left || x > bbox.left + bbox.width + r) return;
    const left = x > bbox.left + bbox.width - 44 * r;
    ctx.save();
    Object.assign(ctx, { fillStyle: this.train, strokeStyle: this.paper, lineWidth: 2 * r });
    ctx.beginPath();
    ctx.arc(x, y, 4.5 * r, 0, 7);
    ctx.fill();
    ctx.stroke();
    Object.assign(ctx, { font: `600 ${13 * r}px ${SMALL}`, textBaseline: "top", textAlign: left ? "right" : "left", lineWidth: 4 * r });
    haloed(ctx, value.toFixed(2), x + (left ? 2 : 4) * r, y + 8 * r);
    ctx.restore();
  }
}

/** uPlot wants strictly rising values of x: of equal ones, the last stays. */
function unique([x, ...ys]) {
  const chosen = x.map((_, i) => i).filter((i) => i === x.length - 1 || x[i] < x[i + 1]);
  return [x, ...ys].map((values) => chosen.map((i) => values[i]));
}

/** Text that lines beneath it leave legible. */
function haloed(ctx, text, x, y) {
  ctx.strokeText(text, x, y);
  ctx.fillText(text, x, y);
}

function path(ctx, x0, y0, x1, y1) {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}
