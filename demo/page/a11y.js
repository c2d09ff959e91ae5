// Keyboard, and what a screen reader is told: at most every 15 s, and only when the meaning has changed.
import { duration, whole } from "./format.js";
import { STAGES } from "./state.js";
import { runBar, timeLeft } from "./words.js";

const QUIET = 15_000; // ms
const TURNING = new Set(["p", ",", "n", "."]); // keys that the site's theme takes for the page before or after this one
const FIELDS = "input:not([type=radio], [type=checkbox], [type=range]), textarea, select, dialog, [contenteditable]";

/** @param {import("./demo.js").Demo} demo */
export function mountA11y(demo) {
  const { parts, flow } = demo;
  let said = "";
  let at = -Infinity;
  let later;

  function onKey(event) {
    if (TURNING.has(event.key.toLowerCase())) event.stopPropagation(); // the theme listens at the window
    if (event.key === "Escape" && demo.resetCharts()) return;
    if (event.ctrlKey || event.metaKey || event.altKey || !parts.get("keys").checked) return;
    const target = event.composedPath()[0];
    if (target instanceof Element && target.closest(FIELDS)) return;
    if (event.key === "?") demo.do("keys");
    else if (event.key === "p" || event.key === "P") toggle();
    else if (event.key >= "1" && event.key <= "6") demo.open(STAGES[Number(event.key) - 1], true);
    else return;
    event.preventDefault();
  }
  const toggle = () => {
    const { state } = flow;
    const does = runBar(state).actions.map((a) => a.does);
    const recorded = flow.replay !== null; // whose bar may have other things to offer
    if (does.includes("pause") || (recorded && state.phase === "working")) demo.do("pause");
    else if (does.includes("resume") || recorded) demo.do("resume");
  };
  document.addEventListener("keydown", onKey);

  /** The run in one sentence; its figures are left out of what counts as a change of meaning. */
  function sentence(state) {
    const { run } = state;
    const loss = run.series.smooth.at(-1);
    if (state.phase !== "working" || state.stage !== "train" || loss === undefined) return runBar(state).title.replace(/:.*/, "");
    const left = timeLeft(state);
    return `Step ${whole(run.step)}. Guessing among ${whole(Math.exp(loss))} tokens.${Number.isFinite(left) ? ` ${duration(left)} left.` : ""}`;
  }

  function speak(state) {
    if (state.phase === "failed" || state.tries) return; // the alert has said it
    const text = sentence(state);
    if (text === said) return;
    clearTimeout(later);
    const wait = at + QUIET - performance.now();
    if (wait > 0) {
      later = setTimeout(() => speak(flow.state), wait);
      return;
    }
    at = performance.now();
    said = text;
    parts.put("live", text);
  }

  return {
    update(state) {
      speak(state);
      const trouble = state.aside ?? state.trouble;
      const silent = !trouble && state.tries > 0; // another try is under way: the same news is no news
      if (!silent) parts.put("alert", trouble ? [trouble.title, trouble.note].filter(Boolean).join(". ") : "");
    },
    end() {
      document.removeEventListener("keydown", onKey);
      clearTimeout(later);
    },
  };
}
