// The run bar, the six heads, and on phones the bar at the foot of the screen.
import { setIcon } from "./dom.js";
import { STAGES } from "./state.js";
import { head, runBar } from "./words.js";

/** @param {import("./demo.js").Demo} demo */
export function mountRun(demo) {
  const { root, parts } = demo;
  const bar = root.querySelector(".run");
  const icon = bar.querySelector(".run__icon");
  const meter = bar.querySelector(".run__bar");
  const foot = root.querySelector(".foot");
  const buttons = {
    first: bar.querySelector('[data-act="first"]'),
    second: bar.querySelector('[data-act="second"]'),
    foot: foot.querySelector("button"),
  };
  for (const button of Object.values(buttons)) {
    button.addEventListener("click", ({ detail }) => {
      if (detail < 2) demo.do(button.dataset.does); // the first press of a double-click has made it another button
    });
  }

  const heads = STAGES.map((name) => mountHead(demo, name));

  // The run bar has left the screen: a phone's foot keeps its state and its main action.
  const watcher = new IntersectionObserver(([entry]) => { foot.hidden = entry.isIntersecting; });
  watcher.observe(bar);

  function update(state) {
    const { status, title, note, actions, bar: done } = runBar(state);
    bar.dataset.tone = status;
    foot.dataset.tone = status;
    setIcon(icon, status);
    parts.put("title", title);
    parts.put("note", note);
    parts.put("foot", title);
    if (meter.value !== done) meter.value = done;
    label(buttons.first, actions[0]);
    label(buttons.second, actions[1]);
    label(buttons.foot, actions[0]);
    buttons.first.disabled = buttons.foot.disabled = actions[0]?.does === "start" && Boolean(state.rule);
    for (const button of Object.values(buttons)) button.setAttribute("aria-disabled", String(Boolean(state.asked)));
    const follows = state.phase === "working" && state.open !== state.stage && STAGES.includes(state.stage);
    parts.show("follow", follows);
    root.dataset.state = state.phase;
    heads.forEach((draw) => draw(state));
  }

  return { update, end: () => watcher.disconnect() };
}

function label(button, given) {
  button.hidden = !given;
  if (!given) return;
  if (button.textContent !== given.label) button.textContent = given.label;
  button.dataset.does = given.does;
}

function mountHead(demo, name) {
  const stage = demo.root.querySelector(`[data-stage="${name}"]`);
  const button = stage.querySelector(".stage__head button");
  const body = stage.querySelector(".stage__body");
  const say = stage.querySelector(`[data-say]`);
  const part = (cls) => button.querySelector(`.stage__${cls}`);
  const [icon, word, value, note, bar] = ["icon", "word", "value", "note", "bar"].map(part);
  button.addEventListener("click", () => demo.open(name));

  return (state) => {
    const h = head(state, name);
    stage.dataset.status = h.status;
    setIcon(icon, h.status);
    for (const [node, text] of [[word, h.word], [value, h.value], [note, h.note], [say, h.say]]) {
      if (node.textContent !== text) node.textContent = text;
    }
    say.hidden = !h.say;
    bar.hidden = h.progress === null;
    if (h.progress !== null && bar.value !== h.progress) bar.value = h.progress;
    const open = state.open === name;
    if (body.hidden === open) {
      body.hidden = !open;
      button.setAttribute("aria-expanded", String(open));
    }
  };
}
