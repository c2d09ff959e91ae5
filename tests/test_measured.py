"""What the page of benchmarks draws: a step by kernel, learning, curves of cost, and charts' axes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from records import ABOUT

from demo.site import charts, data, measured


def records_of(folder: Path, name: str, *records: dict[str, Any]) -> list[data.Record]:
    (folder / f"{name}.json").write_text(json.dumps([{**ABOUT, "impl": "tabula", **r} for r in records]))
    return data.whole(name, folder)


def kernel(name: str, ms: float, share: float, **more: float) -> dict[str, Any]:
    return {"kernel": name, "ms": ms, "step_share": share, **more}


def test_a_profile_is_a_row_a_kernel_and_what_is_left(tmp_path: Path) -> None:
    kernels = [
        kernel("m.multiply NN", 30.0, 0.6, launches=6, tflops=150, gb_per_s=90, roof_share=0.5),
        kernel("adamw.update", 10.0, 0.2, launches=2, gb_per_s=1500, roof_share=0.75),
        kernel(measured.BETWEEN, 10.0, 0.2),
    ]
    step = {"workload": "GPT-9", "precision": "mixed", "batch": 8, "ms_per_step": 50.0, "tokens_per_s": 9}
    roofs = {"matmul_tflops": 300, "copy_gb_per_s": 2000, "dispatches": 8}
    records = records_of(tmp_path, "profile", {**step, **roofs, "kernels": kernels})
    ((group, page),) = measured.sections(records)
    assert group == records
    assert "its 8 launches take 40 ms; at the roofs, 300 TFLOP/s for products and 2 TB/s for bytes" in page
    assert "they would take 22.5 ms" in page  # 30 · 0.5 + 10 · 0.75
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in page.split("<tr")[2:]]
    assert rows == [
        ["m.multiply NN", "6", "30 ms", "60%", "150 TFLOP/s", "90 GB/s", "50%"],
        ["adamw.update", "2", "10 ms", "20%", "–", "1.5 TB/s", "75%"],
        [measured.BETWEEN, "–", "10 ms", "20%", "–", "–", "–"],
    ]
    assert re.findall(r'rect width="([\d.]+)" height="4" class="tb-bar__(\w+)"', page) == [
        ("100", "ours"),
        ("33.33", "ours"),
        ("33.33", "other"),
    ]
    assert len({record.anchor for record in data.measurements(tmp_path)}) == 3


def test_runs_are_drawn_beside_the_first_and_apart_from_it(tmp_path: Path) -> None:
    def run(precision: str, seed: int, losses: list[float], apart: float) -> dict[str, Any]:
        ends = {"training_loss": losses[-1], "validation_loss": 3.0, "validation_difference_loss": apart}
        about = {
            "workload": "nano",
            "precision": precision,
            "batch": 8,
            "seed": seed,
            "steps": 3,
            "tokens": 9,
        }
        points = {"training_steps": [1, 2, 3], "training_losses": losses}
        more = {"parameters": 5, "skipped_steps": 0, "train_s": 2.5, "training_difference_loss": apart}
        return {**about, **ends, **points, **more}

    other, mixed = run("f32", 2, [5.0, 4.5, 4.0], 0.5), run("mixed", 1, [5.0, 4.0, 3.0], 0.00004)
    records = records_of(tmp_path, "learning", other, mixed, run("f32", 1, [5.0, 4.0, 3.0], 0.0))
    ((_, page),) = measured.sections(records)
    assert re.findall(r'<th scope="row">([^<]*)', page) == ["f32", "mixed", "f32, another seed"]
    lines = re.findall(r'points="([^"]*)" class="tb-line--(\w+)"', page)
    assert [kind for _, kind in lines] == ["first", "second", "third", "second", "third"]
    mixed_apart, other_apart = ([float(p.split(",")[1]) for p in line.split()] for line, _ in lines[3:])
    assert mixed_apart == [charts.BOTTOM] * 3  # its losses are the first run's
    assert other_apart == [charts.BOTTOM, (charts.BOTTOM + charts.TOP) / 2, charts.TOP]


def test_curves_are_drawn_where_there_are_points_and_told_in_a_table(tmp_path: Path) -> None:
    def along(axis: str, precision: str, rates: dict[int, int]) -> dict[str, Any]:
        points = [{"at": at, "batch": 2, "tokens_per_s": rate, "parameters": 7} for at, rate in rates.items()]
        return {"workload": "LARGE", "batch": 64, "axis": axis, "precision": precision, "points": points}

    records = records_of(
        tmp_path,
        "curves",
        along("context", "f32", {128: 1000, 2048: 100}),
        along("context", "mixed", {128: 10_000}),
        along("vocabulary", "f32", {1024: 500}),
    )
    ((_, page),) = measured.sections(records)
    assert page.count('<svg class="tb-chart"') == 1  # a point alone is no curve
    assert re.findall(r'points="([^"]*)"', page)[0] == "13.00,46.00 98.00,87.00"  # a tenth, then a hundredth
    assert page.count("<circle") == 3
    assert page.count('<th scope="row">vocabulary</th>') == 1
    assert page.count("<tr") == 1 + 4
    assert len({record.anchor for record in data.measurements(tmp_path)}) == 4


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([3, 480], [2, 5, 10, 20, 50, 100, 200, 500]),
        ([1000, 1000], [1000, 2000]),
        ([0.03, 0.04], [0.02, 0.05]),
    ],
)
def test_logarithmic_axes_begin_and_end_at_marks(values: list[float], marks: list[float]) -> None:
    axis = charts.logarithmic(values)
    assert (axis.low, axis.high) == pytest.approx((marks[0], marks[-1]))
    assert axis.marks == pytest.approx(marks if len(marks) <= 7 else marks[1::2])


@pytest.mark.parametrize(
    ("values", "marks"),
    [([3.1, 6.9], [3, 4, 5, 6, 7]), ([-0.01, 0.05], [-0.02, 0, 0.02, 0.04, 0.06]), ([2, 2], [2, 2.5])],
)
def test_even_axes_have_round_marks(values: list[float], marks: list[float]) -> None:
    assert charts.even(values).marks == pytest.approx(marks)


def test_numbers_of_a_chart() -> None:
    assert [charts.short(n) for n in (0, 0.05, -0.1, 512, 1024, 50_304, 1.3e6, 2e9)] == [
        *("0", "0.05", "−0.1", "512", "1 K", "50 K", "1.3 M", "2 B")
    ]
