// Books that did not arrive are asked for again by themselves: a few times, later and later, and never sooner
// than their server wants. The run bar counts down.

const PAUSES = [12, 30, 60]; // seconds before the first, second and third try
const LONGEST_PAUSE = 300; // a server that wants more is not waited for

export class Tries {
  /** @param {import("./flow.js").Flow} flow */
  constructor(flow) {
    this.flow = flow;
  }

  /** Begins to count down, if another try may do better (`retry` is then a number: see demo/protocol.js). */
  later({ retry }) {
    const { state } = this.flow;
    const pause = Math.max(retry ?? Infinity, PAUSES[state.tries] ?? Infinity);
    if (pause > LONGEST_PAUSE) return;
    state.nextTry = Date.now() + 1000 * pause;
    this.counting = setInterval(() => this.flow.draw(false), 1000);
    this.trying = setTimeout(() => {
      const tries = state.tries + 1;
      this.flow.fetchAgain(); // which begins anew
      state.tries = tries;
    }, 1000 * pause);
  }

  stop() {
    clearInterval(this.counting);
    clearTimeout(this.trying);
    this.flow.state.nextTry = 0;
  }
}
