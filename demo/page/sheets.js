// The sheets at the side: device, runs, details, keyboard. A dialog traps focus and gives it back.
import { el, keep, memo, remake } from "./dom.js";
import { bytes, figure, whole } from "./format.js";

const UNDO = 10_000; // ms in which a deletion can be taken back
const NEXT = { Undo: "Delete", Save: "Rename", Cancel: "Rename", "": "Rename" }; // a button that has done its work → where the focus goes

/** @param {import("./demo.js").Demo} demo */
export function mountSheets(demo) {
  const { root, parts, flow } = demo;
  const sheet = (name) => root.querySelector(`[data-sheet="${name}"]`);
  const leaving = new Map(); // runs that are deleted when their time is up
  let renamed = ""; // the run whose name is being changed
  const owed = () => keep.read("deleted", []); // the same ones, for a page that was left before that
  for (const run of owed()) {
    flow.kept.forget(run);
    if (flow.state.offer?.run === run) flow.state.offer = null;
  }

  root.querySelectorAll("dialog").forEach((dialog) => {
    let beside = false; // whether the press began on the page beside the sheet: a press that slips off a button closes nothing
    dialog.addEventListener("pointerdown", ({ clientX }) => { beside = clientX < dialog.getBoundingClientRect().left; });
    dialog.addEventListener("click", ({ target }) => {
      if ((target === dialog && beside) || target.closest("[data-close]")) dialog.close();
    });
  });
  for (const name of ["device", "keys", "details"]) {
    demo.on(name, () => {
      update(flow.state);
      sheet(name).showModal();
    });
  }
  demo.on("measure", () => demo.run(flow.boot().then(() => flow.ask("measure")).then(() => flow.tune(true))));
  demo.on("runs", () => {
    sheet("runs").showModal();
    demo.run(flow.shipped.list());
    if (flow.state.mode === "live") demo.run(flow.boot().then(deleteOwed).then(() => flow.ask("runs")));
    demo.draw(false);
  });
  demo.on("copy-details", () => navigator.clipboard?.writeText(parts.get("details-text").textContent));
  demo.on("export", () => exportRun(flow.state.run.name));
  demo.on("share", async () => {
    const { model, train } = flow.state;
    const link = new URL(location.href);
    link.search = "";
    link.hash = `settings=${encodeURIComponent(JSON.stringify({ ...model, ...train }))}`;
    const copied = await navigator.clipboard?.writeText(link.href).then(() => true, () => false);
    const what = `${copied ? "Copied" : "To copy"}: settings and seed.`;
    say(`${what} Your text is not in the link. ${link.href}`);
  });
  parts.get("import").addEventListener("change", ({ target }) => {
    take(target.files[0]);
    target.value = ""; // the same file may be chosen again
  });
  sheet("runs").addEventListener("dragover", (event) => event.preventDefault());
  sheet("runs").addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  async function take(file) {
    if (!file) return;
    await here(async () => {
      const zip = new Uint8Array(await file.arrayBuffer());
      await flow.boot();
      const { title } = await flow.ask("import_run", { zip });
      say(`“${title}” is imported.`);
      await flow.ask("runs");
    });
  }

  function say(text) {
    parts.put("share-note", text);
    if (text) parts.get("share-note").scrollIntoView({ block: "nearest" }); // the list below it may be long
  }
  /** What goes wrong in the sheet of runs is said in it: the run bar is behind it, and the current run goes on. */
  async function here(work) {
    say("");
    try {
      await work();
    } catch (error) {
      if (sheet("runs").open) say([error.message, error.note].filter(Boolean).join(". "));
      else flow.tell(error);
    }
  }

  async function exportRun(run) {
    const { zip, name } = await flow.ask("export_run", { run });
    const link = el("a", { href: URL.createObjectURL(new Blob([zip], { type: "application/zip" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  /** The run is gone at once to look at, and in truth when it can no longer be taken back. */
  function remove(run) {
    const done = () => {
      stay(run);
      flow.kept.forget(run);
      demo.run(flow.ask("delete_run", { run }).then(() => flow.ask("runs")));
    };
    leaving.set(run, setTimeout(done, UNDO));
    noteOwed();
  }

  /** It leaves no more: taken back, or gone. */
  function stay(run) {
    clearTimeout(leaving.get(run));
    leaving.delete(run);
    noteOwed();
  }

  function noteOwed() {
    keep.write("deleted", leaving.size ? [...leaving.keys()] : null);
    demo.draw(false);
  }

  async function deleteOwed() {
    const rest = owed().filter((run) => !leaving.has(run));
    noteOwed();
    for (const run of rest) await flow.ask("delete_run", { run });
  }

  function runItem(r, active, locked) {
    if (leaving.has(r.run)) {
      return el("li", {}, el("span", { text: `“${r.title}” is deleted. ` }), small("Undo", () => stay(r.run), false, `Undo: keep ${r.title}`));
    }
    if (renamed === r.run) return renameItem(r);
    const loss = Number.isFinite(r.loss) && r.loss !== null ? `, loss ${r.loss.toFixed(2)}` : "";
    const when = new Date(typeof r.date === "number" ? r.date * 1000 : r.date);
    const open = () => {
      sheet("runs").close();
      demo.run(flow.kept.open(r.run, r.title).then(() => flow.kept.show()));
    };
    const button = (text, onclick, disabled) => small(text, onclick, disabled, `${text} ${r.title}`);
    return el("li", {}, el("b", { text: r.title }),
      el("span", { class: "muted num", text: `Step ${whole(r.step)} of ${whole(r.steps)}${loss}, ${bytes(r.bytes)}, ${when.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })}` }),
      el("div", { class: "runs__actions" },
        button("Open", open, locked), button("Rename", () => rename(r.run)), button("Export", () => here(() => exportRun(r.run))),
        button("Delete", () => remove(r.run), active)));
  }

  function rename(run) {
    renamed = run;
    update(flow.state);
    parts.get("runs").querySelector("input")?.select();
  }

  function renameItem({ run, title }) {
    const input = el("input", { type: "text", "aria-label": "Name of the run", value: title });
    const save = (event) => {
      event.preventDefault();
      const name = input.value.trim() || title;
      rename("");
      here(async () => {
        await flow.ask("rename_run", { run, title: name });
        if (flow.state.run.name === run) flow.state.run.title = name;
        for (const report of flow.state.reports) if (report.run === run) report.name = name;
        flow.keepReports();
        await flow.ask("runs");
      });
    };
    const leave = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // which would close the sheet
      event.stopPropagation();
      rename("");
    };
    return el("li", {}, el("form", { onsubmit: save, onkeydown: leave }, input,
      el("div", { class: "runs__actions" }, el("button", { class: "btn btn--small", text: "Save" }), small("Cancel", () => rename("")))));
  }

  const small = (text, onclick, disabled = false, label = null) =>
    el("button", { class: "btn btn--small", type: "button", text, onclick, disabled, "aria-label": label });

  const runs = memo((state, locked) => {
    const items = state.runs.map((r) => runItem(r, locked && r.run === state.run.name, locked));
    remake(parts.get("runs"), items, parts.get("import"), NEXT);
  });

  const kernels = ({ tuning, kernels: found }) =>
    tuning ? `${whole(tuning.done)} of ${whole(tuning.total)}` : found ? `${whole(found.faster)} of ${whole(found.measured)} changed` : "";

  const facts = memo((state) => {
    const d = state.device;
    const lines = d ? [
      ["Adapter", d.name], ["Interface", d.backend], ["Kind", d.software ? "Processor (software)" : d.kind],
      ["Features", (d.features ?? []).join(", ") || "–"], ["f32 matmul, measured", state.peak ? `${figure(state.peak)} GFLOP/s` : "not yet"],
      ["Kernels, measured", kernels(state)],
    ] : [];
    parts.get("device-facts").replaceChildren(...lines.filter(([, v]) => v).map(([k, v]) => el("div", {}, el("dt", { text: k }), el("dd", { text: v }))));
  });

  function update(state) {
    facts(`${JSON.stringify(state.device)} ${state.peak} ${kernels(state)}`, state);
    parts.put("device-note", state.mode === "recorded" ? "No GPU can be used here. Chrome or Edge 113, Safari 26, Firefox 145 and newer have WebGPU; on Linux it may need to be switched on." : "Measured by multiplying matrices for up to 0.4 s, and by trying the kernels on the shapes of the settings.");
    const measure = sheet("device").querySelector('[data-do="measure"]');
    measure.textContent = state.peak ? "Measure again" : "Measure";
    measure.disabled = state.mode === "recorded" || state.phase === "working" || state.tuning !== null;
    parts.put("runs-count", state.runs?.length ?? "");
    const { quota } = state;
    const room = quota ? ` ${bytes(quota.used)} used, ${bytes(quota.available)} left in this browser.` : "";
    const none = state.runs && !state.runs.length ? "No run is kept yet." : "";
    const waiting = state.mode === "recorded" ? "Runs are kept where training is possible." : "Loading Python, which reads the kept runs.";
    parts.put("runs-note", state.runs ? none + room : waiting);
    const locked = ["working", "paused"].includes(state.phase);
    const { models, note } = state.shipped; // the list above: a run that is drawn before it would move under the reader's press
    if (state.runs && (models.length || note)) runs(`${JSON.stringify(state.runs)} ${[...leaving.keys()]} ${renamed} ${locked} ${state.run.name}`, state, locked);
    const trouble = state.aside ?? state.trouble;
    if (trouble) {
      parts.put("details-note", [trouble.title, trouble.note].filter(Boolean).join(". "));
      parts.put("details-text", trouble.details || "Nothing more is known.");
    }
  }
  return {
    update,
    end() {
      for (const timer of leaving.values()) clearTimeout(timer);
    },
  };
}
