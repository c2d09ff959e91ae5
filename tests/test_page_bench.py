"""The page's bench on the built site: every figure is there, with where it comes from. How large one is, is
for a quiet machine to say.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from demo import bench, bench_server
from trainer.corpus import read_bundled

ROOT = Path(__file__).parent.parent
LITTLE = bench.Effort(visits=1, training_seconds=0.5, replays=3, bpe_bytes=100_000, vocab=300)


def in_a_thread(work: Any) -> Any:
    """Playwright's loop may be open in this thread, for other tests of the same process."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    (result,) = found
    return result


def test_every_figure_is_measured_and_says_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    values, browser = in_a_thread(lambda: bench.measure(site, LITTLE))
    records = bench.made_records(values, browser, "python -m demo.bench")
    assert [(record["name"], record["unit"]) for record in records] == [
        (name, unit) for name, (unit, _) in bench.BUDGETS.items()
    ]
    for record in records:
        assert list(record) == ["name", "value", "unit", "browser", "machine", "date", "commit", "command"]
        assert record["value"] > 0, record
        assert record["browser"].startswith("Chromium ")
    told = capsys.readouterr().out
    counts = {name: told.count(name) for name, _, _ in bench.MILESTONES}
    assert counts.pop("GPU is measured") == 1, "the second visit knows the peak"
    assert set(counts.values()) == {2}
    (sent,) = [r["value"] for r in records if r["unit"] == "MB"]
    assert 4 < sent < 20


def test_a_site_that_was_not_built_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--site", str(tmp_path)]) == 1
    assert "run `make site`" in capsys.readouterr().err


def test_the_text_has_the_size_and_the_words_of_the_books() -> None:
    text = bench.shuffled_books(200_000)
    assert 200_000 <= len(text.encode()) < 210_000
    words = {word for book in read_bundled() for word in book.text.split()}
    assert set(text.split()) <= words
    assert text == bench.shuffled_books(200_000)


def test_the_host_compresses_counts_and_answers_for_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>a page</p>" * 1000)
    (tmp_path / "books.zip").write_bytes(bytes(1000))
    with bench_server.serve(tmp_path) as (address, tally):

        def get(url: str, **headers: str) -> Any:
            return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)

        page = get(address)
        assert page.headers["Content-Encoding"] == "gzip"
        assert len(page.read()) < tally.sent < 1000
        assert get(address + "books.zip").read() == bytes(1000)
        assert 1000 < tally.sent < 2000
        with pytest.raises(urllib.error.HTTPError, match="304"):
            get(address, **{"If-None-Match": page.headers["ETag"]})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(address.removesuffix("site/") + "index.html")
