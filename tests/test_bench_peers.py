"""What the bench of other trainers makes of its times, and that it notices one that computes something else.
The bench itself needs their packages, which only its own command installs.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from demo import bench_peers
from demo.site.live.records import read

LN_V = math.log(512)
FIRST = {"tabula": 6.25, "jax-js": 6.27, "TensorFlow.js": 6.22}
LAST = {"tabula": 5.61, "jax-js": 5.59, "TensorFlow.js": 5.6}
ABOUT = {
    "device": "a GPU",
    "browser": "Chromium",
    "machine": "a machine",
    "date": "2026-11-26",
    "commit": "0",
}


def test_records_hold_the_medians_the_fastest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peers, "version", {"@jax-js/jax": "0.1", "@tensorflow/tfjs": "4"}.__getitem__)
    times = {"TINY": {"TensorFlow.js": [900.0, 700.0, 800.0], "tabula": [30.0, 20.0, 64.0], "jax-js": [90.0]}}
    records = bench_peers.made_records(times, ABOUT)
    assert [(r["impl"], r["ms_per_step"], r["tokens_per_s"]) for r in records] == [
        ("tabula", 30.0, round(8 * 64 / 0.03)),
        ("jax-js 0.1", 90.0, round(8 * 64 / 0.09)),
        ("TensorFlow.js 4", 800.0, 640),
    ]
    assert {r["workload"] for r in records} == {"TINY"}
    assert records[0].items() >= ABOUT.items()


def test_trainers_that_learn_alike_pass() -> None:
    bench_peers.check("TINY", FIRST, LAST, LN_V)


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        ({"jax-js": 7.0}, {}, "ln V is 6.2383"),
        ({"tabula": math.nan}, {}, "ln V is 6.2383"),
        ({}, {"TensorFlow.js": 5.2}, "Tabula's 5.6100"),
        ({}, {"TensorFlow.js": math.nan}, "Tabula's 5.6100"),
        ({}, {"tabula": 6.26, "jax-js": 6.26, "TensorFlow.js": 6.26}, "Tabula's 6.2600"),
    ],
)
def test_one_that_computes_something_else_is_refused(
    first: dict[str, float], last: dict[str, float], says: str
) -> None:
    with pytest.raises(bench_peers.PeersError, match=says):
        bench_peers.check("TINY", {**FIRST, **first}, {**LAST, **last}, LN_V)


def test_what_webgpu_refused_is_no_result() -> None:
    assert bench_peers.is_problem('[Invalid ComputePipeline "Kt"] is invalid due to a previous error.')
    assert bench_peers.is_problem(
        "The number of storage buffers (29) in the Compute stage exceeds the maximum"
    )
    assert not bench_peers.is_problem("Failed to load resource: the server responded with a status of 404")


def test_a_site_that_was_not_built_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_peers.main(["--site", str(tmp_path)]) == 1
    assert "run `make site`" in capsys.readouterr().err


def test_the_committed_records_are_of_one_run() -> None:
    records = read("peers.json")
    assert {record["workload"] for record in records} == set(bench_peers.STEPS)
    assert len(records) == len(bench_peers.STEPS) * len(bench_peers.IMPLEMENTATIONS)
    assert len({tuple(record[name] for name in (*ABOUT, "command")) for record in records}) == 1
