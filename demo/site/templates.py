"""The Markdown pages are Jinja templates: a figure is asked for by its name, and says where it is from.

{{ fact("m1_peak") }}                                       2.6 TFLOP/s, a link to its source
{{ measured("train_steps", "tflops", workload="gpt2") }}    28.9 TFLOP/s, a link to the page of benchmarks
{{ fastest("train_steps", "tflops", workload="gpt2") }}     the same, of several records the fastest
{{ value("gpt2_parameters") * 6 }}                          a number to reckon with
{{ quantity(1.2e9, "FLOP/s") }}                             what was reckoned
{{ shipped("small", "BLiMP accuracy") }}                    67%, a link to the page of checkpoints
{{ kernel("layernorm", "backward") }}                       a function of a shader file
"""

from __future__ import annotations

import importlib
import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from demo.site import benchmarks, checkpoints, example, kernels, pipeline, reference
from demo.site.data import DataError, Fact, Record, fact, facts, fastest, find, matching, sample
from demo.site.quantities import quantity

ROOT = Path(__file__).resolve().parents[2]
SUPERSCRIPT = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
ON_THE_LINE = str.maketrans(SUPERSCRIPT, "-0123456789")
SOURCES = "#sources"  # where the post says whose the figures without an address are


def render(markdown: str, url: str) -> str:
    """A page's Markdown with everything in it that is asked for; `url` is the page's own.

    Raises DataError, or one of Jinja's errors, for what is not there.
    """
    up = posixpath.relpath(".", url or ".")
    environment = Environment(
        undefined=StrictUndefined, comment_start_string="{##", keep_trailing_newline=True
    )
    environment.globals.update(
        fact=lambda name: _link(fact(name)),
        facts=lambda prefix: facts_table(prefix),
        value=lambda name: fact(name).value,
        quantity=lambda value, unit: _whole(quantity(value, unit)),
        measured=lambda file, field, **wanted: _measured(up, find(file, **wanted), field),
        number=lambda file, field, **wanted: find(file, **wanted).number(field),
        fastest=lambda file, field, **wanted: _measured(up, fastest(file, **wanted), field),
        fastest_number=lambda file, field, **wanted: fastest(file, **wanted).number(field),
        gpt2_runs=lambda device: gpt2_runs(up, device),
        constant=constant,
        kernel=kernels.quote,
        kernel_lines=kernels.lines,
        kernel_gallery=kernels.gallery,
        benchmarks=benchmarks.page,
        measurements=benchmarks.section,
        checkpoints=checkpoints.page,
        shipped=lambda name, what: _shipped(up, name, what),
        shipped_sample=_shipped_sample,
        commands=reference.commands,
        presets=reference.presets,
        document=document,
        snippet=snippet,
        waiting=benchmarks.waiting,
        sample=_sample,
        merges=example.merges,
        cut=example.cut,
        book_bytes=lambda: quantity(example.trained()[1], "B"),
        pipeline=lambda: pipeline.drawing(f"{up}/demo/"),
        start=lambda: pipeline.start(f"{up}/demo/"),
    )
    return environment.from_string(markdown).render()


def constant(name: str) -> Any:
    """A constant of the code: constant("trainer.config.MAX_VOCAB")."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def document(name: str) -> str:
    """A Markdown file from the project's root, its links made to fit the site."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return text.replace("](docs/", "](")


def snippet(name: str, within: str) -> str:
    """The fenced block of a Markdown file in the project's root that holds `within`. Raises DataError."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for block in re.findall(r"^```\w+\n.*?^```$", text, re.MULTILINE | re.DOTALL):
        if within in block:
            return block
    raise DataError(f"{name} has no block with {within!r}", "name one that is there")


def facts_table(prefix: str) -> str:
    """The facts whose names begin with `prefix`, as a Markdown table of their notes."""
    rows = ["| what | figure |", "|---|---:|"]
    rows += [f"| {f.note} | {_whole(f.shown)} |" for f in facts().values() if f.name.startswith(prefix)]
    return "\n".join(rows)


def _link(known: Fact) -> str:
    return _figure(known.shown, known.url or SOURCES, known.source)


def gpt2_runs(up: str, device: str) -> str:
    """What all of GPT-2's tokens would take at each rate that was measured on a device: a Markdown table."""
    tokens, rent = fact("gpt2_tokens").value, fact("h100_rent").value
    rows = ["| trainer, arithmetic | rate | time | rent |", "|---|---:|---:|---:|"]
    runs = matching("train_steps", device=device, workload="GPT-2")
    for record in sorted(runs, key=lambda record: record.number("tokens_per_s")):
        seconds = tokens / record.number("tokens_per_s")
        ours = record.values["impl"] == "tabula"
        by = "this one" if ours else f"{record.values['impl']}, {record.values['variant']}"
        cells = (
            f"{by}, {record.values['precision']}",
            _measured(up, record, "tokens_per_s"),
            _whole(quantity(seconds, "s")),
            _whole(quantity([round(price * seconds / 3600) for price in rent], "USD")),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _measured(up: str, record: Record, field: str) -> str:
    return _figure(record.shown(field), f"{up}/benchmarks/#{record.anchor}", record.origin)


def _figure(text: str, href: str, title: str) -> str:
    return f'<a class="tb-figure" href="{escape(href)}" title="{escape(title)}">{_whole(text)}</a>'


def _sample(step: int) -> str:
    """What the recorded run wrote at a step, the prompt in front."""
    prompt, text = sample(step)
    return (
        f'<blockquote class="tb-sample"><p><b>{escape(prompt)}</b>{escape(text)}</p>'
        f"<footer>after {step:,} steps</footer></blockquote>"
    )


def _shipped(up: str, name: str, what: str) -> str:
    trained = checkpoints.shipped(name)["trained"]
    origin = f"{trained['steps']:,} steps on {trained['device']}"
    return _figure(checkpoints.figure(name, what), f"{up}/checkpoints/#{name}", origin)


def _shipped_sample(name: str, number: int) -> str:
    """One of a checkpoint's samples, the prompt in front."""
    sample = checkpoints.shipped(name)["samples"][number]
    prompt, text = (escape(" ".join(sample[part].split())) for part in ("prompt", "text"))
    return f'<blockquote class="tb-sample"><p><b>{prompt}</b> {text}</p></blockquote>'


def _whole(text: str) -> str:
    """Not broken between number and unit; powers as markup, since the fonts lack half of those characters."""
    text = re.sub(f"[{SUPERSCRIPT}]+", lambda power: f"<sup>{power[0].translate(ON_THE_LINE)}</sup>", text)
    return text.replace(" ", "\N{NO-BREAK SPACE}")
