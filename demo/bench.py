"""How fast the built page is: drives site/ in Chromium, as a reader would, on its software WebGPU.

    make site && python -m demo.bench [--out docs/data/page.json]

The site is served from a sub-path with gzip and the cache headers of a plain static host, so that the bytes
that are counted are those that a reader waits for. Prints each value beside its budget.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from demo.bench_server import serve
from trainer import storage
from trainer.corpus import read_bundled
from trainer.provenance import commit, machine, today

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
# Software WebGPU, and nothing that the browser would do on its own account.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
)
TIMEOUT = 300_000  # ms
DISPATCHES = 300

# name → unit, and the most that it may be
BUDGETS: dict[str, tuple[str, float]] = {
    "first_visit_to_first_step": ("s", 20),
    "second_visit_to_first_step": ("s", 5),
    "transferred_compressed_mb": ("MB", 8),
    "longest_main_thread_task": ("ms", 50),
    "replay_300_dispatches": ("ms", 3),
    "bpe_10mb_train_and_tokenize": ("s", 30),
}


@dataclass(frozen=True)
class Effort:
    """How much is measured; a test takes less."""

    visits: int = 3  # pairs of a first and a second visit, each pair with a profile of its own
    training_seconds: float = 10  # watched for long tasks
    replays: int = 50
    bpe_bytes: int = 10_000_000
    vocab: int = 8192


# Notes when each kind of message passes between page and worker (ms since navigation began: the first and the
# last of its kind), and presses Start as soon as the page knows its device and lets it be pressed.
NOTES = """(() => {
  const notes = (self.bench = { first: {}, last: {} });
  const asked = new Map();
  const note = (name) => {
    notes.last[name] = performance.now();
    notes.first[name] ??= notes.last[name];
  };
  self.Worker = class extends Worker {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => {
        if (data.reply) note(`${asked.get(data.reply)} answered`);
        else note(data.stage ? `${data.event} ${data.stage}` : data.event);
      });
    }
    postMessage(message, ...more) {
      asked.set(message.id, message.command);
      super.postMessage(message, ...more);
    }
  };
  const timer = setInterval(() => {
    const demo = document.querySelector("tabula-demo");
    const button = demo?.querySelector('[data-act="first"]');
    if (!demo?.flow?.state.device || button.dataset.does !== "start" || button.disabled) return;
    clearInterval(timer);
    note("Start");
    button.click();
  }, 5);
})()"""

# What a visit waits for, in its order: (what is printed, first or last, message).
MILESTONES = (
    ("page shown, Start pressed", "first", "Start"),
    ("Python's files are there", "last", "loading"),
    ("Python and GPU are ready", "last", "boot answered"),
    ("GPU is measured", "last", "measure answered"),
    ("books are read", "last", "load answered"),
    ("tokenizer is trained", "last", "train_tokenizer answered"),
    ("text is tokenized", "last", "tokenize answered"),
    ("first kernel is compiled", "first", "progress compile"),
    ("last kernel is compiled", "last", "progress compile"),
    ("first step is told", "first", "step"),
)

# In the worker: keeps the compiled plan that trains, and the names of what a step runs.
CATCH_REPLAY = """async (url) => {
  const { Replay } = await import(url);
  const { run } = Replay.prototype;
  Replay.prototype.run = function (names, every) {
    if (names.startsWith("micro")) Object.assign(self, { caught: this, step: names });
    return run.call(this, names, every);
  };
}"""

# In the worker: ms that it takes to replay the first dispatches of steps in a row, beginning on an idle GPU.
# One workgroup each, as what the GPU does is not meant; ten at a time, as the browser's clock is coarse.
TIME_REPLAY = """async ([dispatches, repeats]) => {
  const IN_A_ROW = 10;
  const flat = step.split(" ").filter(Boolean).flatMap((name) => [...caught.programs.get(name)]);
  const chosen = (_, i) => (i % 5 < 2 ? flat[i % flat.length] : 1); // pipeline, group, grid
  const replayed = Int32Array.from({ length: 5 * dispatches }, chosen);
  caught.programs.set("replayed", replayed);
  const times = [];
  for (let i = 0; i < repeats; i++) {
    await caught.finish();
    const began = performance.now();
    for (let n = 0; n < IN_A_ROW; n++) caught.run("replayed");
    times.push((performance.now() - began) / IN_A_ROW);
  }
  await caught.finish();
  return times;
}"""

BPE = """async ([text, vocab]) => {
  const { client } = document.querySelector("tabula-demo").flow;
  await client.send("load", { sources: [{ kind: "text", title: "Shuffled books", text }] });
  const began = performance.now();
  await client.send("train_tokenizer", { vocab });
  const trained = performance.now();
  await client.send("tokenize");
  return [trained - began, performance.now() - trained].map((ms) => ms / 1000);
}"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.bench", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the records, such as docs/data/page.json")
    parser.add_argument("--site", type=Path, default=SITE, help="the built site")
    given = parser.parse_args(argv)
    if not (given.site / "demo" / "index.html").is_file():
        print(f"{given.site} is no built site: run `make site`", file=sys.stderr)
        return 1
    values, browser = measure(given.site, Effort())
    records = made_records(values, browser, " ".join(["python -m demo.bench", *(argv or sys.argv[1:])]))
    for record in records:
        _, most = BUDGETS[record["name"]]
        verdict = "" if record["value"] <= most else "  over budget"
        print(f"{record['name']:28} {record['value']:8.2f} {record['unit']:2}  budget {most:g}{verdict}")
    if given.out:
        storage.write_file(given.out, [(json.dumps(records, indent=1) + "\n").encode()])
    return 0


def made_records(values: dict[str, float], browser: str, command: str) -> list[dict[str, Any]]:
    """A record per value, with where it comes from."""
    origin = {
        "browser": browser,
        "machine": machine(),
        "date": today(),
        "commit": commit(),
        "command": command,
    }
    return [
        {"name": name, "value": round(values[name], 3), "unit": unit, **origin}
        for name, (unit, _) in BUDGETS.items()
    ]


def measure(site: Path, effort: Effort) -> tuple[dict[str, float], str]:
    """All values by name, and the browser that they were measured in."""
    first: list[dict[str, float]] = []
    second: list[dict[str, float]] = []
    sent: list[int] = []
    for _ in range(effort.visits):
        with serve(site) as (address, tally), profile() as context:
            page = visit(context, address)
            first.append(milestones(page))
            sent.append(tally.sent)
            until(page, "caches.open('tabula-boot').then((c) => c.keys()).then((k) => k.length === 2)")
            end(page)
            page = visit(context, address)
            second.append(milestones(page))
            end(page)
    with serve(site) as (address, _), profile() as context:
        rest, browser = measure_rest(context, address, effort)
    print_milestones("First visit", first)
    print_milestones("Second visit", second)
    last = MILESTONES[-1][0]
    values = {
        "first_visit_to_first_step": median(times[last] for times in first) / 1000,
        "second_visit_to_first_step": median(times[last] for times in second) / 1000,
        "transferred_compressed_mb": median(sent) / 1e6,
        **rest,
    }
    return values, browser


def measure_rest(context: BrowserContext, address: str, effort: Effort) -> tuple[dict[str, float], str]:
    """What needs no fresh page: long tasks, the replay and BPE, in one visit."""
    page = context.new_page()
    page.goto(address + "demo/")
    until(page, "Boolean(bench.first['boot answered'])")
    worker = next(worker for worker in page.workers if worker.url.endswith("/worker.js"))
    worker.evaluate(CATCH_REPLAY, worker.url.removesuffix("worker.js") + "gpu.js")
    until(page, "Boolean(bench.first['progress compile'])")
    with main_thread_tasks(page) as tasks:
        until(page, "Boolean(bench.first.step)")
        page.wait_for_timeout(1000 * effort.training_seconds)
    stop(page)
    replays = worker.evaluate(TIME_REPLAY, [DISPATCHES, effort.replays])
    trained, tokenized = page.evaluate(BPE, [shuffled_books(effort.bpe_bytes), effort.vocab])
    print(f"\nBPE: trained in {trained:.1f} s, tokenized in {tokenized:.1f} s")
    version = page.evaluate("navigator.userAgent.match(/Chrome\\/([0-9.]+)/)[1]")
    values = {
        "longest_main_thread_task": max(tasks),
        "replay_300_dispatches": median(replays),
        "bpe_10mb_train_and_tokenize": trained + tokenized,
    }
    return values, f"Chromium {version}, headless, SwiftShader"


def shuffled_books(size: int) -> str:
    """About `size` bytes of text: the paragraphs of the bundled books, shuffled, as often as it takes. Words
    and their frequencies are real; other books would bring more words that are seen once.
    """
    paragraphs = [part for book in read_bundled() for part in book.text.split("\n\n")]
    rng = random.Random(1)
    chosen: list[str] = []
    while size > 0:
        rng.shuffle(paragraphs)
        for paragraph in paragraphs:
            if size <= 0:
                break
            chosen.append(paragraph)
            size -= len(paragraph.encode()) + 2
    return "\n\n".join(chosen)


# -------------------------------------------------------------------- the browser


@contextmanager
def profile() -> Iterator[BrowserContext]:
    """Chromium, the system's, else Playwright's own, with a new profile on disk, as a reader has one."""
    system = which("chromium") or which("chromium-browser") or which("google-chrome")
    # Chromium may still write into the folder when it has been closed.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        sync_playwright() as playwright,
    ):
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=system, headless=True, args=ARGUMENTS
        )
        context.set_default_timeout(TIMEOUT)
        context.add_init_script(NOTES)
        try:
            yield context
        finally:
            context.close()


def visit(context: BrowserContext, address: str) -> Page:
    """A new page that has told its first step."""
    page = context.new_page()
    page.goto(address + "demo/")
    until(page, "Boolean(bench.first.step)")
    return page


def stop(page: Page) -> None:
    """Ends the training as a reader does, so that no later visit offers to continue it."""
    page.evaluate("document.querySelector('tabula-demo').do('stop')")
    until(page, "Boolean(bench.first.run_ended)")


def end(page: Page) -> None:
    stop(page)
    page.close()


def until(page: Page, expression: str) -> None:
    """Waits for a JavaScript expression. (Playwright's wait_for_function needs eval, which the page forbids.)
    Raises TimeoutError.
    """
    for _ in range(TIMEOUT // 100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise TimeoutError(f"still false after {TIMEOUT / 1000:.0f} s: {expression}")


def milestones(page: Page) -> dict[str, float]:
    """ms since navigation began, by milestone; a later visit measures no GPU that it knows."""
    notes = page.evaluate("bench")
    return {name: notes[which][message] for name, which, message in MILESTONES if message in notes[which]}


def print_milestones(title: str, visits: Sequence[dict[str, float]]) -> None:
    """Medians, and what came between one and the next."""
    print(f"\n{title}, s since navigation began")
    before = 0.0
    for name in visits[0]:
        at = median(times[name] for times in visits) / 1000
        print(f"  {name:26} {at:7.2f}  (+{at - before:.2f})")
        before = at


@contextmanager
def main_thread_tasks(page: Page) -> Iterator[list[float]]:
    """The durations in ms of the tasks of the page's main thread. Traced, because the long tasks that a page
    is told of begin at 50 ms, and how far below that they stay is the figure.
    """
    session = page.context.new_cdp_session(page)
    events: list[dict[str, Any]] = []
    complete: list[object] = []
    tasks: list[float] = []
    session.on("Tracing.dataCollected", lambda given: events.extend(given["value"]))
    session.on("Tracing.tracingComplete", lambda given: complete.append(given))
    categories = ["disabled-by-default-devtools.timeline"]
    session.send("Tracing.start", {"traceConfig": {"includedCategories": categories}})
    yield tasks
    session.send("Tracing.end")
    while not complete:
        page.wait_for_timeout(50)
    session.detach()
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks += [
        event["dur"] / 1000
        for event in events
        if event["name"] == "RunTask" and (event["pid"], event["tid"]) in threads and "dur" in event
    ]


if __name__ == "__main__":
    raise SystemExit(main())
