"""The site's parts without a browser: figures and their sources, quoted kernels, tables, cards."""

from __future__ import annotations

import doctest
import io
import json
import re
from pathlib import Path

import pytest
from documents import ROOT
from PIL import Image
from records import ABOUT

from demo.site import benchmarks, cards, checkpoints, data, example, kernels, quantities, reference, templates
from demo.site.data import DataError
from trainer import cleaning
from trainer.cli import COMMANDS, parser_of
from trainer.kernels import LOOP_LIMIT, entry_points, file_text, files, source, variants
from trainer.plan import MAX_BINDING
from trainer.train import SUBMIT_SECONDS

# ---------------------------------------------------------------- numbers with units

# Read as they are, on GitHub too: each number is looked up. The other pages are templates: none is typed.
PLAIN = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/design.md",
    "docs/books/PROVENANCE.md",
    "docs/checkpoints/PROVENANCE.md",
]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if path.relative_to(ROOT).as_posix() not in PLAIN
]
UNITS = (
    r"[kMGTP]?FLOP(?:s|S|/s)?|[kKMGT]i?B(?:/s)?|bytes?|bits|bits per byte|nats|tokens(?:/s)?|parameters|words"
    r"|µs|ms|s|seconds|min|minutes|h|hours|days|weeks|years"
    r"|steps|iterations|invocations|storage buffers|threads|cores|times|passes"
)
NUMBER = re.compile(
    rf"\$\s?\d[\d.,–]*|(?<![\w.])\d[\d.,]*(?:–\d[\d.,]*)?(?:[kMBT]|\s(?:million|billion))?(?:%|×(?!\s?\d)|[\s\u00a0]?(?:{UNITS})\b)"
)


def prose(text: str) -> str:
    """A page's text without front matter, code, templates, comments and addresses."""
    text = re.sub(r"\A---\n.*?^---\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for pattern in (r"\{\{.*?\}\}", r"\{%.*?%\}", r"<!--.*?-->", r"`[^`]*`", r"\]\([^)]*\)", r"<[^>]+>"):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text


def numbers(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", found).strip(" .,") for found in NUMBER.findall(prose(text))]


def published() -> set[str]:
    """Every figure that a file of the project vouches for, as the pages write it."""
    found = {known.shown for known in data.facts().values()}
    for record in data.measurements():
        found |= {
            record.shown(name) for name, value in record.values.items() if isinstance(value, int | float)
        }
    return found | from_the_code()


def from_the_code() -> set[str]:
    """What is no measurement: computed from the code or the books at hand, or said of the models' texts."""
    models = json.loads(checkpoints.MANIFEST.read_text(encoding="utf-8"))
    presets = reference.PRESETS.values()
    books = list((ROOT / "docs" / "books").rglob("*.txt"))
    texts = [cleaning.normalise_newlines(cleaning.decode(path.read_bytes())) for path in books]
    header_and_licence = sum(len(text.encode()) - len(cleaning.clean(text).encode()) for text in texts) / len(
        books
    )
    return {
        *(f"{preset.model.parameters / 1e6:.1f}M parameters" for preset in presets),
        *(f"{preset.model.parameters / 1e6:.0f}M parameters" for preset in presets),
        *(f"{preset.train.steps} steps" for preset in presets),
        *(f"{preset.model.vocab:,} tokens" for preset in presets),
        *(size for entry in models for size in numbers(entry["trained"]["text"])),
        f"{MAX_BINDING >> 20} MiB",
        f"{1000 * SUBMIT_SECONDS:.0f} ms",
        f"{LOOP_LIMIT:,} iterations",
        f"{sum(path.stat().st_size for path in books) / 1e6:.1f} MB",
        f"{header_and_licence / 1e3:.0f} kB",
    }


@pytest.mark.parametrize("page", PAGES)
def test_no_figure_is_typed_into_a_page(page: str) -> None:
    assert numbers((ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", PLAIN)
def test_figures_outside_of_templates_are_those_of_the_data(document: str) -> None:
    known = published()
    found = numbers((ROOT / document).read_text(encoding="utf-8"))
    assert [number for number in found if number not in known] == []


HEADLINES = {
    "matrix product 4096³, f32": ("kernels", "tflops", {"variant": "matmul_tiled"}),
    "the same by cuBLAS": ("kernels", "tflops", {"impl": "torch"}),
    "f16, on matrix units": ("kernels", "tflops", {"variant": "matmul_units", "precision": "mixed"}),
    "training GPT-2 124M, f32": ("train_steps", "tokens_per_s", {}),
    "of it, Python and its WebGPU library": ("train_steps", "encoding_share", {}),
    "in mixed precision": ("train_steps", "tokens_per_s", {"workload": "GPT-2", "precision": "mixed"}),
    "BPE, 8,192 tokens: learned from 10 MB and applied": (
        "page",
        "value",
        {"name": "bpe_10mb_train_and_tokenize"},
    ),
    "everything that the demo loads, compressed": ("page", "value", {"name": "transferred_compressed_mb"}),
}
WORKLOADS = {
    "kernels": {"workload": "matmul NN 4096x4096x4096", "precision": "f32", "device": "H100"},
    "train_steps": {"workload": "gpt2", "impl": "tabula", "precision": "f32", "device": "H100"},
    "page": {},
}


def test_the_headline_figures_are_those_of_their_records() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]* \| ([^|]+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    shown = {what: figure for what, figure in rows if what != "what"}
    assert shown == {
        what: (data.find if file == "page" else data.fastest)(file, **(WORKLOADS[file] | wanted)).shown(field)
        for what, (file, field, wanted) in HEADLINES.items()
    }


def test_the_search_for_figures_finds_them() -> None:
    text = (
        "It does 43.7 TFLOP/s, 2–3 days, $20 and 60%, 8.8× more; 124M parameters, `5 ms`, {{ 6 }} s, A100s."
    )
    assert numbers(text) == ["43.7 TFLOP/s", "2–3 days", "$20", "60%", "8.8×", "124M parameters"]
    assert numbers("3.6 MB in all, and 1–2 minutes, 10 billion tokens") == [
        "3.6 MB",
        "1–2 minutes",
        "10 billion tokens",
    ]


# ---------------------------------------------------------------- data


def test_quantities_are_written_as_their_docstrings_say() -> None:
    assert doctest.testmod(quantities).failed == 0


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (50e9, "FLOP/s", "50 GFLOP/s"),
        (990e12, "FLOP/s", "990 TFLOP/s"),
        (7.464e18, "FLOP", "7.5 × 10¹⁸ FLOPs"),
        (1e19, "FLOP", "10¹⁹ FLOPs"),
        (124.4e6, "parameters", "124 million parameters"),
        ([2, 3], "USD/h", "$2–3 an hour"),
        (90 * 60, "s", "90 minutes"),
        (24 * 3600, "s", "24 hours"),
        (1e19 / 50e9, "s", "6.34 years"),
        (0.917e-3, "s", "917 µs"),
        ([0.0035, 0.006], "s", "3.5–6 ms"),
        (8.78, "x", "8.78×"),
    ],
)
def test_quantities(value: float, unit: str, expected: str) -> None:
    assert quantities.quantity(value, unit) == expected


def test_every_fact_has_a_source() -> None:
    rows = json.loads((data.DATA / "facts.json").read_text(encoding="utf-8"))
    assert len({row["name"] for row in rows}) == len(rows)
    assert [row["name"] for row in rows if not row["source"]] == []
    assert [row["url"] for row in rows if not row.get("url", "https://").startswith("https://")] == []


def test_every_measurement_tells_where_it_is_from() -> None:
    records = data.measurements()
    assert len(records) > 30
    for record in records:
        assert record.device != "None"
        assert record.values["date"], record
        assert re.match(r"[0-9a-f]{40}(-dirty)?$", str(record.values["commit"])), record
        assert record.values["command"], record
    anchors = [record.anchor for record in records]
    assert len(set(anchors)) == len(anchors)


def test_a_figure_that_is_not_there_is_an_error_with_its_name() -> None:
    with pytest.raises(DataError, match="m7_peak"):
        data.fact("m7_peak")
    with pytest.raises(DataError, match=r"kernels\.json has 0 records with workload='nothing'"):
        data.find("kernels", workload="nothing")
    with pytest.raises(DataError, match="records"):  # too many
        data.find("kernels", variant="matmul")
    with pytest.raises(DataError, match="0 records"):
        data.fastest("kernels", variant="nothing")
    with pytest.raises(DataError, match="'speed'"):
        data.find("train_steps", workload="gpt2", device="H100").shown("speed")
    with pytest.raises(DataError, match="wrote nothing at step 7"):
        data.sample(7)


def test_the_fastest_of_several_records_is_taken() -> None:
    product = {"workload": "matmul NN 4096x4096x4096", "impl": "tabula", "device": "H100"}
    rates = [record.number("tflops") for record in data.matching("kernels", **product)]
    assert len(rates) > 1
    assert data.fastest("kernels", **product).number("tflops") == max(rates)


def test_a_figure_names_its_origin_and_leads_there() -> None:
    page = templates.render(
        '{{ measured("train_steps", "tokens_per_s", workload="gpt2", device="H100") }}', "faq/"
    )
    record = data.find("train_steps", workload="gpt2", device="H100")
    assert f'href="../benchmarks/#{record.anchor}"' in page
    assert str(record.values["commit"])[:9] in page
    assert f"{record.values['tokens_per_s']:,}" in page
    fact = templates.render('{{ fact("gpt2_flops_rounded") }}', "")
    assert "10<sup>19</sup>" in fact
    assert "notes" in fact


# ---------------------------------------------------------------- pages made of files


def test_kernels_are_quoted_to_the_letter() -> None:
    quoted = kernels.quote("layernorm", "backward").splitlines()
    code = source("layernorm")
    assert quoted[1] == "@compute @workgroup_size(64)"
    assert "\n".join(quoted[1:-1]) in code
    assert quoted[-2] == "}"
    lines = kernels.lines("matmul", "var s = 0.0;", "let i").splitlines()
    assert [line.strip() for line in lines[1:-1]] == [
        line.strip() for line in code_between(source("matmul"), "var s = 0.0;", "let i")
    ]
    with pytest.raises(DataError, match="'sideways'"):
        kernels.quote("layernorm", "sideways")
    with pytest.raises(DataError, match="no lines"):
        kernels.lines("matmul", "var s = 0.0;", "nowhere")


def code_between(code: str, first: str, end: str) -> list[str]:
    return code[code.index(first) : code.index(end)].rstrip().splitlines()


def test_the_gallery_shows_every_kernel() -> None:
    page = kernels.gallery()
    for variant in variants():
        for name in files(variant):
            assert file_text(name).splitlines()[-2] in page
            assert page.count(f'"shaders/{name}.wgsl,') == page.count(f'id="file-{name}"') == 1
        for entry in entry_points(variant):
            assert f"| `{entry}` |" in page


def test_the_worked_example_is_the_tokenizers_own() -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", example.merges("aaab aab", 2))[1:]
    texts = [re.sub(r"<[^>]+>", "|", row) for row in rows]
    assert len(rows) == 3
    assert "a| + |a" in texts[1]
    cut = re.sub(r"</span><span>", " ", example.merges("low low lower", 4).rpartition("tb-pieces")[2])
    assert "low" in cut


def test_the_reference_has_every_flag_of_every_command() -> None:
    page = reference.commands()
    for name in COMMANDS:
        parser, _ = parser_of(name)
        flags = [
            flag
            for action in parser._actions
            for flag in action.option_strings
            if flag not in ("-h", "--help")
        ]
        assert flags or name == "devices"
        section = page[page.index(f"## trainer {name} ") :]
        assert [flag for flag in flags if flag not in section] == []


def test_tables_take_records_of_any_kind(tmp_path: Path) -> None:
    """A kind not known today: one object with what is shared, and rows with fields of their own."""
    rows = [
        {"kernel": "matmul_units", "precision": "f16", "time_us": 12.5, "tflops": 300, "odd": {"a": 1}},
        {"kernel": "adamw", "gb_per_s": 2100.0, "speed<up>": 1.5},
    ]
    (tmp_path / "profile.json").write_text(json.dumps({**ABOUT, "steps": 3, "kernels": rows}))
    (tmp_path / "facts.json").write_text("[]")
    found = data.measurements(tmp_path)
    assert len(found) == 2
    page = benchmarks.table(found)
    for text in (
        "matmul_units",
        "300 TFLOP/s",
        "2.1 TB/s",
        "12.5 µs",
        "Speed&lt;up&gt;",
        "ccccccccc",
        "x --y",
        "a box",
    ):
        assert text in page
    assert 'width="100"' in page


def test_a_manifest_makes_a_page_of_checkpoints(tmp_path: Path) -> None:
    assert checkpoints.page(tmp_path / "none.json") == checkpoints.NONE
    entry = {
        "name": "small-books",
        "title": "Small, on ten books",
        "parameters": 13_891_584,
        "config": {"layers": 6, "width": 384},
        "trained": {
            "tokens": 2e9,
            "steps": 20_000,
            "seconds": 5400,
            "device": "an H100",
            "text": "ten old books",
        },
        "scores": {"bits per byte": 1.5},
        "files": [{"name": "model.safetensors", "bytes": 55_600_000, "sha256": "ab" * 32}],
        "samples": [{"prompt": "Once", "text": " <b>upon</b>\na time"}],
    }
    manifest = tmp_path / "index.json"
    manifest.write_text(json.dumps([entry]))
    page = checkpoints.page(manifest)
    for text in (
        "## Small, on ten books { #small-books }",
        "13,891,584",
        "layers 6, width 384",
        "90 minutes",
        "ten old books",
        "1.5",
    ):
        assert text in page
    assert 'href="small-books/model.safetensors"' in page
    assert "55.6 MB" in page
    assert "ab" * 32 in page
    assert "&lt;b&gt;upon&lt;/b&gt;<br>a time" in page


def test_cards_are_pictures_that_do_not_change() -> None:
    body = cards.card(
        "A very long title that has to be broken into several lines to fit", "And a line below it"
    )
    image = Image.open(io.BytesIO(body))
    assert (image.format, image.size) == ("PNG", (cards.WIDTH, cards.HEIGHT))
    assert len(body) < 100_000
    assert body == cards.card(
        "A very long title that has to be broken into several lines to fit", "And a line below it"
    )
    assert body != cards.card("Another title", "And a line below it")
