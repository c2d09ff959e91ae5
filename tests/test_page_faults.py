"""The built site's demo as a reader drives it, with the real worker: the whole way, and what may go wrong."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from urllib.parse import urlsplit

import pytest
from browser import wait_until
from page_site import TINY, demo, fill, losses, state, trained, vocabulary
from playwright.sync_api import Browser, Page, Route, expect
from raw_server import (
    ALICE,
    ALICE_BODY,
    OZ,
    OZ_BODY,
    Answer,
    GitHub,
    corrupted,
    html,
    status,
    truncated,
    truncated_silently,
)
from ui_page import head, press, title

from trainer.gutenberg import TIMEOUT

pytest_plugins = ("browser", "built_site")


def test_the_whole_way_from_the_shipped_books_to_the_evaluation(chromium: Browser, base: str) -> None:
    with demo(chromium, base) as page:
        vocabulary(page)
        fill(page, **TINY, steps=50)
        press(page, "Start")
        trained(page, 50)
        for stage, says in {
            "data": "10 books", "tokenizer": "300 tokens", "tokenize": "tokens",
            "train": "Loss ", "eval": "bits/byte",
        }.items():  # fmt: skip
            expect(head(page, stage)).to_contain_text("Done")
            expect(head(page, stage)).to_contain_text(says)
        curve = losses(page)
        assert list(curve) == list(range(1, 51))
        assert curve[50] < curve[1] - 0.3
        head(page, "infer").click()
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text("48 tokens, ")
        expect(page.locator('[data-t="out"] button')).to_have_count(48)
        head(page, "eval").click()
        expect(page.locator('[data-t="bpb"]')).to_contain_text("This run")
        expect(page.locator('[data-t="blimp-note"]')).to_have_text(re.compile("of 40 pairs"))
        assert state(page, "report.text.bits_per_byte") < state(
            page, "report.text.baselines.uniform_bits_per_byte"
        )
        page.watch.assert_clean()
        assert [url for url in page.watch.requests if not url.startswith((base, "blob:", "data:"))] == []


@contextmanager
def library(page: Page, *faults: Answer, hangs: bool = False) -> Iterator[GitHub]:
    """A stand-in for GitHub's raw server, with two books; the first requests for Oz meet `faults`, or all
    of them are never answered.
    """
    github = GitHub()

    def answer(route: Route) -> None:
        if hangs and OZ.repo in route.request.url:
            return
        connection = http.client.HTTPConnection(urlsplit(github.base).netloc, timeout=10)
        try:
            connection.request("GET", urlsplit(route.request.url).path)
            got = connection.getresponse()
            allowed = {"access-control-allow-origin": "*", "access-control-expose-headers": "retry-after"}
            headers = {**dict(got.getheaders()), **allowed}
            route.fulfill(status=got.status, headers=headers, body=got.read())
        except http.client.HTTPException:  # what a browser makes of a body that is cut off
            route.abort("connectionfailed")
        finally:
            connection.close()

    github.add(OZ.repo, OZ.files[0].name, OZ_BODY, *faults)
    github.add(ALICE.repo, ALICE.files[0].name, ALICE_BODY)
    page.context.route("https://raw.githubusercontent.com/**", answer)
    try:
        yield github
    finally:
        github.close()


# Pauses pass a hundred times as fast, but for those of about `kept` ms.
HASTE = """(kept) => {
  const wait = self.setTimeout;
  const passes = (after) => after > 200 && Math.abs(after - kept) > 1000;
  self.setTimeout = (work, after = 0, ...given) => wait(work, passes(after) ? after / 100 : after, ...given);
}"""


def pick(page: Page, *titles: str, hangs: bool = False) -> None:
    """Opens the library, which starts the worker, and picks books. What a request may take passes faster,
    too, only where the server `hangs`: an answer may take long on a busy machine.
    """
    head(page, "data").click()
    with page.expect_worker() as started:
        page.get_by_text("Pick from the library").click()
    started.value.evaluate(HASTE, inf if hangs else 1000 * TIMEOUT)
    for name in titles:
        page.get_by_label(name).check()
    page.get_by_role("button", name="Fetch these books").click()


KEPT = "caches.open('tabula-books').then((c) => c.keys()).then((all) => all.map((r) => r.url))"


def test_books_are_asked_for_again_until_they_come_whole(chromium: Browser, base: str) -> None:
    with demo(chromium, base) as page:
        faults = (status(429), truncated, html, truncated_silently)
        with library(page, *faults) as github:
            pick(page, OZ.title)
            expect(head(page, "data")).to_contain_text("1 book", timeout=60_000)
            expect(head(page, "data")).to_contain_text("Done")
            assert github.requests == [OZ.files[0].name] * 5
            (kept,) = page.evaluate(KEPT)
            assert kept.endswith(f"/{OZ.repo}/master/{OZ.files[0].name}")
            assert state(page, "trouble") is None


@pytest.mark.parametrize(
    ("fault", "says", "note"),
    [
        (status(404), "1 of 2 books did not arrive", "The server did not send them."),
        (status(429), "1 of 2 books did not arrive", "GitHub asks us to slow down (429). Next try in 12 s."),
        (html, "1 of 2 books did not arrive", "The server did not send them. Next try in 12 s."),
        (corrupted, f"“{OZ.title}” is not what it should be", "Its hash differs; it was not kept."),
    ],
    ids=["404", "429", "HTML", "corrupted"],
)
def test_a_book_that_never_comes_is_told_and_not_kept(
    chromium: Browser, base: str, fault: Answer, says: str, note: str
) -> None:
    with demo(chromium, base) as page, library(page, *[fault] * 20):
        pick(page, OZ.title, ALICE.title)
        expect(title(page)).to_have_text(says, timeout=60_000)
        counting = re.escape(note).replace("12", "1?[0-9]")
        expect(page.locator('.run [data-t="note"]')).to_have_text(re.compile(f"^{counting}$"))
        expect(page.locator('[data-t="documents"] button')).to_have_text([ALICE.title])
        assert [url.rpartition("/")[2] for url in page.evaluate(KEPT)] == [ALICE.files[0].name]


def test_a_server_that_hangs_is_given_up_and_the_other_books_are_used(chromium: Browser, base: str) -> None:
    with demo(chromium, base) as page, library(page, hangs=True):
        pick(page, OZ.title, ALICE.title, hangs=True)
        expect(title(page)).to_have_text("1 of 2 books did not arrive", timeout=60_000)
        assert [url.rpartition("/")[2] for url in page.evaluate(KEPT)] == [ALICE.files[0].name]
        press(page, "Use the 1")
        expect(head(page, "data")).to_contain_text("1 book")
        expect(head(page, "data")).to_contain_text("Done")
        expect(page.locator(".run__actions")).to_contain_text("Start")


def test_books_are_asked_for_again_by_themselves_a_few_times(chromium: Browser, base: str) -> None:
    with demo(chromium, base) as page:
        attempts = 5  # in one go
        with library(page, *[status(429)] * (4 * attempts)) as github:
            page.evaluate(HASTE, inf)
            said = "window.said = []; new MutationObserver(() => said.push(alert.textContent)).observe"
            page.evaluate(
                f"const alert = document.querySelector('[data-t=alert]'); {said}(alert, {{childList: true}})"
            )
            pick(page, OZ.title)
            for tries in range(4):  # the reader's, and three by themselves
                wait_until(page, f"document.querySelector('tabula-demo').flow.state.tries === {tries}")
            expect(page.locator(".run__actions")).to_contain_text("Details", timeout=60_000)
            page.wait_for_timeout(500)
            assert len(github.requests) == 4 * attempts
            assert page.evaluate("said") == [
                "1 of 1 books did not arrive. GitHub asks us to slow down (429)."
            ]
            expect(page.locator('.run [data-t="note"]')).to_have_text("GitHub asks us to slow down (429).")
            press(page, "Try now")
            expect(head(page, "data")).to_contain_text("Done", timeout=60_000)
            assert page.evaluate("said").pop() == ""


def test_a_try_to_come_can_be_stopped_and_comes_no_sooner_than_the_server_wants(
    chromium: Browser, base: str
) -> None:
    with demo(chromium, base) as page, library(page, status(429, Retry_After="40")) as github:
        pick(page, OZ.title)
        note = page.locator('.run [data-t="note"]')
        expect(note).to_have_text(re.compile(r"Next try in (40|3\d) s\.$"), timeout=60_000)
        assert github.requests == [OZ.files[0].name]
        press(page, "Stop trying")
        expect(note).to_have_text("GitHub asks us to slow down (429).")
