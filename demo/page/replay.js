// A recorded run, which `python -m demo.record` made: it plays through the same reducer as a run of this device.
const LENGTH = 40; // seconds that a whole run plays

/** The recorded runs, of which a file is fetched when it is first asked for. */
export class Recordings {
  /** @param {URL} place  their folder, with the index that the build makes */
  constructor(place) {
    this.place = place;
    this.index = read(new URL("index.json", place)).then((answer) => answer.json());
    this.index.catch(() => {}); // told to whoever asks for a run
    this.runs = new Map();
  }

  /**
   * The recorded run of a preset, else the smallest, which is the first.
   * @returns {Promise<{preset: string, events: Object<string, any>[], report: Object<string, any> | null}>}
   */
  async of(preset) {
    const index = await this.index;
    const entry = index.find((e) => e.preset === preset) ?? index[0];
    if (!this.runs.has(entry.name)) this.runs.set(entry.name, this.read(entry));
    return this.runs.get(entry.name);
  }

  async read({ file, report, preset }) {
    const { place } = this;
    const [events, reports] = await Promise.all([lines(new URL(file, place)), report && lines(new URL(report, place))]);
    return { preset, events, report: reports?.[0] ?? null };
  }
}

/** Loss of guessing by the tokens' frequencies alone, or NaN where a run was not evaluated. */
export const unigramLoss = (report) => report?.text?.baselines.unigram_loss ?? NaN;

async function lines(url) {
  return (await (await read(url)).text()).trim().split("\n").map((line) => JSON.parse(line));
}

async function read(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} is missing (${answer.status})`);
  return answer;
}

export class Replay {
  /**
   * @param {Object<string, any>[]} events
   * @param {(event: Object<string, any>) => void} onEvent
   */
  constructor(events, onEvent) {
    this.events = events;
    this.onEvent = onEvent;
    this.at = 0;
    const span = events.at(-1).time - events[0].time;
    this.speed = Math.max(1, span / LENGTH);
    this.clock = 0; // seconds of the recording that have been played
    this.timer = null;
  }

  get playing() {
    return this.timer !== null;
  }

  get ended() {
    return this.at >= this.events.length;
  }

  play() {
    if (this.playing) return;
    if (this.ended) this.at = this.clock = 0;
    let last = performance.now();
    this.timer = setInterval(() => {
      const now = performance.now();
      this.advance(((now - last) / 1000) * this.speed);
      last = now;
    }, 100);
  }

  /** Hands out what happens in the next `seconds` of the recording. */
  advance(seconds) {
    this.clock += seconds;
    const start = this.events[0].time;
    while (!this.ended && this.events[this.at].time - start <= this.clock) this.onEvent(this.events[this.at++]);
    if (this.ended) this.pause();
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
  }
}
