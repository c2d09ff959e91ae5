// A recorded run, which `python -m demo.record` made: it plays through the same reducer as a run of this device.
const LENGTH = 40; // seconds that a whole run plays

/**
 * The smallest recorded run, the first of the index that the build makes.
 * @param {URL} place  the folder of the recordings
 * @returns {Promise<{events: Object<string, any>[], report: Object<string, any> | null}>}
 */
export async function readRecorded(place) {
  const [{ file, report }] = await (await read(new URL("index.json", place))).json();
  const [events, reports] = await Promise.all([lines(new URL(file, place)), report && lines(new URL(report, place))]);
  return { events, report: reports?.[0] ?? null };
}

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
