"""The worker in Chromium: boots from the bundle, trains on WebGPU, keeps runs in OPFS, survives a reload."""

from __future__ import annotations

import base64
import io
import math
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase

import pytest
from browser import WatchedPage, serve, wait_until, watched
from page_session import QUICK, SMALL, TEXT, VOCAB
from playwright.sync_api import Browser, Route

from demo import protocol
from demo.build import bundle_folder
from trainer.config import MAX_VOCAB
from trainer.corpus import bundled
from trainer.gutenberg import manifest

pytest_plugins = ("browser",)

PAGES = Path(__file__).parent / "pages"
TRAIN = {**QUICK, "steps": 24, "eval_every": 12, "sample_every": 12}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve(PAGES, folders={"bundle/": bundle_folder()}) as base:
        yield base


def ready(page: WatchedPage, address: str) -> dict[str, object]:
    page.goto(address + "session.html")
    wait_until(page, "Boolean(window.send)")
    return page.evaluate("boot()")


@contextmanager
def prepared(chromium: Browser, address: str) -> Iterator[WatchedPage]:
    """A page whose text is tokens."""
    with watched(chromium) as page:
        ready(page, address)
        page.evaluate("(source) => send('load', {sources: [source]})", TEXT)
        page.evaluate(f"send('train_tokenizer', {{vocab: {VOCAB}}})")
        page.evaluate("send('tokenize')")
        yield page


TRAIN_SCRIPT = "([model, train, run]) => send('train', {model, train, run})"


def losses(page: WatchedPage) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in page.evaluate("heard('step')")}


def ended(page: WatchedPage) -> None:
    wait_until(
        page, "heard('run_ended').length && heard('saved').at(-1)?.step === heard('run_ended').at(-1).step"
    )


def test_second_boot_is_from_the_snapshot_and_the_default_corpus_loads(
    chromium: Browser, address: str
) -> None:
    with watched(chromium) as page:
        first = ready(page, address)
        assert first["device"]["software"]  # type: ignore[index]
        loading = page.evaluate("heard('loading')")
        assert loading[-1]["done"] == loading[-1]["total"] > 5_000_000
        wait_until(page, "caches.open('tabula-boot').then((c) => c.keys()).then((k) => k.length)")
        damaged = "fetch('bundle/manifest.json').then((r) => r.json()).then(({version}) => caches"
        damaged += ".open('tabula-boot').then((c) => c.put(`/${version}/kernels`, new Response('[{\"ker'))))"
        page.evaluate(damaged)
        assert ready(page, address) == first
        assert not [line for line in page.watch.console if "snapshot" in line]
        loaded = page.evaluate("send('load', {sources: [{kind: 'books'}]})")
        assert len(loaded["documents"]) == 10
        assert {entry["split"] for entry in loaded["documents"]} == {"training", "held-out"}
        page.watch.assert_clean()


def test_steps_are_timed_while_one_batch_is_learned(chromium: Browser, address: str) -> None:
    with watched(chromium) as page:
        ready(page, address)
        timed = page.evaluate("send('bench', {workload: 'TINY', precision: 'f32', steps: 2})")
        assert timed["first_loss"] == pytest.approx(math.log(512), rel=0.02)
        assert 0 < timed["last_loss"] < timed["first_loss"] - 0.02
        assert (timed["batch"], timed["steps"]) == (8, 3)
        assert timed["tokens_per_s"] == pytest.approx(8 * 64 * 1000 / timed["ms_per_step"])
        refused = "(fields) => send('bench', {steps: 1, ...fields}).catch((error) => error.message)"
        for fields, says in (
            ({"workload": "VAST", "precision": "f32"}, "VAST"),
            ({"workload": "TINY", "precision": "mixed"}, "shader-f16"),
        ):
            assert says in page.evaluate(refused, fields)


def test_a_crash_of_python_is_told_with_all_fields(chromium: Browser, address: str) -> None:
    with watched(chromium) as page:
        ready(page, address)
        page.workers[0].evaluate("() => void self.dispatchEvent(new ErrorEvent('error', {message: 'gone'}))")
        wait_until(page, "heard('trouble').length")
        (told,) = page.evaluate("heard('trouble')")
        assert set(told) == {"event", *protocol.EVENTS["trouble"]}
        assert (told["kind"], told["retry"], told["details"]) == ("crash", None, "gone")


def test_training_survives_a_reload_and_equals_the_uninterrupted_run(chromium: Browser, address: str) -> None:
    with prepared(chromium, address) as page:
        page.evaluate(TRAIN_SCRIPT, [SMALL, TRAIN, None])
        ended(page)
        whole = losses(page)
        assert list(whole) == list(range(1, 25))
        page.evaluate("events.length = 0")
        run = page.evaluate(TRAIN_SCRIPT, [SMALL, TRAIN, None])["run"]
        step = page.evaluate("pauseAt(4)")["step"]
        assert 4 <= step < 24
        wrote = page.evaluate("send('generate', {prompt: 'Alice', config: {tokens: 5, temperature: 0}})")
        assert wrote == {"count": 5, "stopped": False}
        text = "".join(event["text"] for event in page.evaluate("heard('token')"))

        ready(page, address)
        kept = page.evaluate("send('runs')")
        assert kept["quota"]["available"] > 1_000_000
        assert (kept["runs"][0]["run"], kept["runs"][0]["step"]) == (run, step)
        opened = page.evaluate("(run) => send('open_run', {run})", run)
        before = {e["step"]: e["loss"] for e in opened["events"] if e["event"] == "step"}
        page.evaluate("send('generate', {prompt: 'Alice', config: {tokens: 5, temperature: 0}})")
        assert "".join(event["text"] for event in page.evaluate("heard('token')")) == text
        page.evaluate(TRAIN_SCRIPT, [None, {}, run])
        ended(page)
        assert {**before, **losses(page)} == whole

        report = page.evaluate("send('evaluate')")
        assert report["blimp"]["pairs"] == 40
        assert 0 < report["text"]["bits_per_byte"] < 8
        name, packed = page.evaluate("(run) => exported(run)", run)
        assert name == "a-story-nano.zip"
        names = zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))).namelist()
        assert "a-story-nano/step-000024/model.safetensors" in names
        copy = page.evaluate("(zip) => imported(zip)", packed)["run"]
        assert page.evaluate("(run) => send('open_run', {run})", copy)["report"] == report
        page.evaluate("(run) => send('delete_run', {run})", run)
        left = [entry["run"] for entry in page.evaluate("send('runs')")["runs"]]
        assert copy in left
        assert run not in left
        page.watch.assert_clean()


def test_two_tabs_and_one_run(chromium: Browser, address: str) -> None:
    with prepared(chromium, address) as page:
        run = page.evaluate(TRAIN_SCRIPT, [SMALL, {**TRAIN, "steps": 3000}, None])["run"]
        wait_until(page, "heard('step').length >= 2")
        page.evaluate("send('save')")
        other = page.context.new_page()
        other.goto(address + "session.html")
        wait_until(other, "Boolean(window.send)")
        other.evaluate("boot()")
        refused = other.evaluate(
            "(run) => send('train', {run, train: {}}).catch((error) => error.message)", run
        )
        assert refused.startswith("other_tab: This run is open in another tab / Only one can train it.")
        other.evaluate("(run) => send('take_over', {run})", run)
        wait_until(page, "heard('trouble').some((event) => event.kind === 'other_tab')")
        other.evaluate(TRAIN_SCRIPT, [None, {}, run])
        wait_until(other, "heard('step').length >= 1")
        other.evaluate("send('stop')")
        other.close()


def test_stop_comes_through_while_python_works(chromium: Browser, address: str) -> None:
    # So many words, and no two alike, that none of the merges is the last one when the page hears of the
    # first, however busy this machine is
    letters = random.Random(0)
    text = " ".join("".join(letters.choices(ascii_lowercase, k=8)) for _ in range(60_000))
    with watched(chromium) as page:
        ready(page, address)
        page.evaluate("(source) => send('load', {sources: [source]})", {**TEXT, "text": text})
        stopped = page.evaluate(  # at the first merge, before the message's own task ends
            """(vocab) => {
              worker.addEventListener("message", ({ data }) => {
                if (data.event === "merge" && !window.asked) window.asked = send("stop");
              });
              return send("train_tokenizer", { vocab }).catch((error) => error.message);
            }""",
            MAX_VOCAB,
        )
        assert str(stopped).startswith("stopped: Stopped")
        page.watch.assert_clean()


WATCH_DEVICES = """() => {
  const open = GPUAdapter.prototype.requestDevice;
  self.devices = [];
  GPUAdapter.prototype.requestDevice = async function (...given) {
    const device = await open.apply(this, given);
    self.devices.push(device);
    return device;
  };
}"""


def test_destroyed_device_is_told_and_the_run_goes_on_to_the_bit(chromium: Browser, address: str) -> None:
    # So many that none of them is the last one when the device goes, however busy this machine is
    train = {**TRAIN, "steps": 240, "eval_every": 120, "sample_every": 120}
    with watched(chromium) as page:
        with page.expect_event("worker") as found:
            page.goto(address + "session.html")
        worker = found.value
        wait_until(page, "Boolean(window.send)")
        worker.evaluate(WATCH_DEVICES)
        page.evaluate("boot()")
        page.evaluate("(source) => send('load', {sources: [source]})", TEXT)
        page.evaluate(f"send('train_tokenizer', {{vocab: {VOCAB}}})")
        page.evaluate("send('tokenize')")
        run = page.evaluate(TRAIN_SCRIPT, [SMALL, train, None])["run"]
        wait_until(page, "heard('step').length >= 3")
        saved = page.evaluate("send('save')")["step"]
        worker.evaluate("devices[0].destroy()")
        told = wait_until(page, "heard('trouble')[0]")
        assert told["kind"] == "lost"
        assert f"The run is safe up to step {saved}" in told["note"]
        first = losses(page)
        page.evaluate("events.length = 0")
        assert page.evaluate(TRAIN_SCRIPT, [None, {}, run])["step"] == saved
        ended(page)
        again = losses(page)
        assert list(again) == list(range(saved + 1, 241))
        assert all(first.get(step, loss) == loss for step, loss in again.items())
        assert worker.evaluate("devices.length") == 2


def test_books_come_from_the_server_once_and_are_checked(chromium: Browser, address: str) -> None:
    oz = manifest()[55]
    asked: list[str] = []

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        asked.append(name)
        path = bundled() / oz.repo / name
        if path.is_file():
            route.fulfill(body=path.read_bytes(), headers={"access-control-allow-origin": "*"})
        else:
            route.fulfill(status=404, headers={"access-control-allow-origin": "*"})

    with watched(chromium) as page:
        page.context.route("https://raw.githubusercontent.com/**", answer)
        for round in (1, 2):
            ready(page, address)
            load = "(names) => send('load', {sources: names.map((name) => ({kind: 'gutenberg', name}))})"
            loaded = page.evaluate(load, [str(oz.id)])
            assert [entry["title"] for entry in loaded["documents"]] == [oz.title]
            assert f"{oz.id}.txt" in asked, round
            if round == 1:
                asked.append("once")
        assert asked[-1] == "once", "the second visit has it from the cache"
        assert page.evaluate("heard('trouble')") == []


def test_full_storage_and_a_crash_are_told(chromium: Browser, address: str) -> None:
    with prepared(chromium, address) as page:
        (worker,) = page.workers
        worker.evaluate("StorageManager.prototype.estimate = async () => ({ usage: 0, quota: 10_000 })")
        page.evaluate(TRAIN_SCRIPT, [SMALL, {**TRAIN, "steps": 6}, None])
        told = wait_until(page, "heard('trouble')[0]")
        assert (told["kind"], told["title"]) == ("quota", "Storage is full: not saving")
        assert told["note"].endswith("; 10 KB is left. Delete a run, or export this one.")
        assert list(losses(page)) == list(range(1, 7))
        assert page.evaluate("send('runs')")["runs"] == []
        worker.evaluate("StorageManager.prototype.estimate = async () => ({ usage: 0, quota: 1e9 })")
        assert page.evaluate("send('save')") == {"step": 6}
        worker.evaluate("setTimeout(() => { throw new Error('unreachable') })")
        told = wait_until(page, "heard('trouble')[1]")
        assert (told["kind"], told["title"]) == ("crash", "Python stopped")
        assert told["note"] == "The run is safe up to step 6."
        assert "unreachable" in told["details"]
