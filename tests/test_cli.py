"""Every command does what its help says. `trainer train` has test_cli_train.py."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from cli_tools import (
    ROOT,
    Cli,
    everything_in,
    run,
)
from raw_server import ALICE, ALICE_BODY, serving

import trainer
from trainer import checkpoint, corpus, gutenberg
from trainer.cache import CACHE_VARIABLE
from trainer.cli import COMMANDS, main
from trainer.config import PRESETS, SampleConfig, TrainConfig
from trainer.devices import open_device
from trainer.generate import complete
from trainer.model import build
from trainer.report import validate
from trainer.runtime import Runtime
from trainer.tokenizer import Tokenizer

pytest_plugins = ("cli_fixtures",)


# Help.


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_purpose_and_examples(command: str, cli: Cli) -> None:
    purpose = COMMANDS[command][1]
    out = flat(cli.done(command, "--help"))
    assert out.startswith(f"usage: trainer {command} ")
    assert flat(purpose)[1:] in out
    if command != "bench":
        assert f"examples: trainer {command}" in out
    assert f"{command} {flat(purpose)}" in flat(cli.done("--help"))


def test_every_setting_is_a_flag_with_its_help_and_default(cli: Cli) -> None:
    helps = {"train": flat(cli.done("train", "--help")), "sample": flat(cli.done("sample", "--help"))}
    nano = PRESETS["nano"]
    for command, config in (("train", nano.model), ("train", nano.train), ("sample", SampleConfig())):
        for f in fields(config):
            default = getattr(config, f.name)
            expected = f"{f.metadata['help']} (default: {'none' if default == '' else default})"
            assert f"--{f.name.replace('_', '-')} " in helps[command]
            assert flat(expected) in helps[command].replace("- ", "-")


def test_help_after_a_preset_shows_its_values(cli: Cli) -> None:
    out = flat(cli.done("train", "--preset", "small", "--help"))
    assert "(C); a multiple of --heads (default: 384)" in out
    assert "optimiser steps in all (default: 20000)" in out


def test_version(cli: Cli) -> None:
    assert cli.done("--version") == f"trainer {trainer.__version__}\n"


# What is not the input's fault.


def test_failure_of_the_machine_is_code_1_in_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(args: Any) -> int:
        raise RuntimeError("device lost\n(because)")

    monkeypatch.setattr("trainer.cli.devices.main", lost)
    monkeypatch.delenv("TRAINER_DEBUG", raising=False)
    result = cli("devices")
    assert result.code == 1
    assert result.err == (
        "trainer: RuntimeError device lost (because): not the input's fault; "
        "TRAINER_DEBUG=1 shows where it happened\n"
    )
    monkeypatch.setenv("TRAINER_DEBUG", "1")
    assert "Traceback" in cli("devices").err


def test_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "trainer", "corpus", "--list"]
    process = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


# devices, budget


def test_devices_lists_one_for_auto(cli: Cli) -> None:
    out = cli.done("devices")
    assert out.count("used for auto") == 1
    assert "max-storage-buffer-binding-size" in out
    records = json.loads(cli.done("devices", "--json"))
    assert [record["auto"] for record in records] == [True] + [False] * (len(records) - 1)
    assert records[0]["name"] == asyncio.run(open_device("auto")).info.name
    for record in records:
        assert record["software"] == (record["kind"] == "CPU")
        assert record["limits"]["max-storage-buffers-per-shader-stage"] >= 8
        assert record["features"]
        assert ("software renderer" in out) >= record["software"]


def test_budget_needs_no_gpu_and_takes_the_presets_values(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wgpu", "numpy", "rich"):
        monkeypatch.setitem(sys.modules, name, None)
    out = cli.done("budget", "--preset", "micro", "--layers", "3", "--gflops", "100")
    model = replace(PRESETS["micro"].model, layers=3)
    assert f"parameters  {model.parameters:,}\n" in out
    train = PRESETS["micro"].train
    tokens = train.steps * train.batch * model.context
    assert f"tokens      {tokens:,} in 2,000 steps of 2,048" in out
    assert f"{tokens / model.parameters / 20:.2f} times Chinchilla's 20" in out
    products = 3 * model.layers * 12 * model.width**2 + 3 * model.vocab * model.width  # in all three passes
    flops = tokens * (2 * products + 6 * model.layers * model.width * model.context)
    assert f"{flops / 1e15:.3g} PFLOP in all" in out or f"{flops / 1e12:.3g} TFLOP in all" in out
    least = 14 * model.layers + 9  # a block is 7 ops
    dispatches = re.search(rf"^dispatches +(\d+) a step; .* {least} ", out, re.MULTILINE)
    assert dispatches
    by_op = re.findall(r"^  \w+ +(\d+) \(\d+\): ", out, re.MULTILINE)
    assert sum(map(int, by_op)) == int(dispatches[1]) > least
    assert re.search(r"^  adamw +3 \(1\): norm_partial 1, settle 1, update 1$", out, re.MULTILINE)
    assert "dispatches" in cli.done("budget", "--precision", "mixed")  # whose kernels need no device here
    minutes = int(flops / 1e11 // 60)
    assert f"time        0:{minutes:02}:" in out


def test_budget_of_a_model_that_fits_nowhere(cli: Cli) -> None:
    line = cli.refused("budget", "--layers", "1000000000")
    assert line.startswith("the model needs more than ")
    assert line.endswith("a device has at most 1,048,576: choose a smaller --layers, --width or --vocab")


# corpus, tokenizer


def test_corpus_lists_bundled_and_verified_books(cli: Cli) -> None:
    out = cli.done("corpus")
    assert out.count("Public domain in the USA") == 10
    assert out.endswith(" 10 texts\n")
    listed = cli.done("corpus", "--list").splitlines()
    assert len(listed) - 1 == len(gutenberg.manifest()) >= 40
    assert "gutenberg:84     Frankenstein" in "\n".join(listed)


def test_corpus_writes_texts_that_read_the_same(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "texts"
    cli.done("corpus", "books", "--out", out)
    assert len(list(out.iterdir())) == 10
    written, bundled = corpus.read_path(out), corpus.read_bundled()
    assert {document.text for document in written} == {document.text for document in bundled}
    assert "exists already: choose another --out" in cli.refused("corpus", "books", "--out", out)


def test_corpus_writes_texts_of_one_title_side_by_side(cli: Cli, tmp_path: Path) -> None:
    records = [{"title": "A Tale: of two", "text": f"Once upon a time {n}"} for n in range(3)]
    (tmp_path / "tales.jsonl").write_text("\n".join(map(json.dumps, records)))
    cli.done("corpus", tmp_path / "tales.jsonl", "--out", tmp_path / "out")
    assert everything_in(tmp_path / "out") == [
        "a-tale-of-two-2.txt",
        "a-tale-of-two-3.txt",
        "a-tale-of-two.txt",
    ]


def test_corpus_previews(cli: Cli, story: Path) -> None:
    out = cli.done("corpus", story, "--preview", "30")
    lines = story.read_text(encoding="utf-8")[:30].splitlines()
    assert all(f"    {line}\n" in out for line in lines)
    assert f"{len(story.read_bytes()):>12,}" in out


def test_corpus_fetches_once(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch) as github:
        monkeypatch.setenv(gutenberg.BASE_VARIABLE, github.base)
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
        github.add(ALICE.repo, "11-0.txt", ALICE_BODY)
        for _ in range(2):
            out = cli.done("corpus", "gutenberg:11")
            assert f"{ALICE.title}, {ALICE.licence}, {github.base}/GITenberg/" in out
            assert "fetch: 1 of 1 books" in out
        assert github.requests == ["11-0.txt"]


def test_tokenizer_trains_and_shows(cli: Cli, story: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokenizer.json"
    out = cli.done("tokenizer", "--sources", story, "--vocab", "300", "--out", path)
    assert f"300 tokens written to {path}" in out
    tokenizer = Tokenizer.load(path)
    assert tokenizer.vocab_size == 300
    shown = cli.done("tokenizer", "--tokenizer", path, "--show", "Alice was")
    ids = tokenizer.encode("Alice was")
    assert [int(line.split()[0]) for line in shown.splitlines()[:-1]] == ids
    assert repr(tokenizer.token_bytes(ids[0])) in shown
    assert shown.endswith(f"{len(ids)} tokens, 9 bytes\n")
    assert "exists already" in cli.refused("tokenizer", "--sources", story, "--out", path)
    cli.done("tokenizer", "--sources", story, "--vocab", "290", "--out", path, "--overwrite")
    assert Tokenizer.load(path).vocab_size == 290


@pytest.mark.parametrize("name", [".", "story.txt/tokenizer.json"])
def test_tokenizer_that_cannot_be_written_is_not_trained(
    name: str, cli: Cli, story: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.cli.tokenizer.load", None)
    place = story.parent / name
    line = cli.refused("tokenizer", "--sources", story, "--out", place, "--overwrite")
    assert line.startswith(("--out ", "cannot write "))
    assert str(story.parent) in line


# sample


async def sampled(folder: Path, prompt: str, config: SampleConfig) -> str:
    """The same text through the library."""
    loaded = checkpoint.load(folder)
    assert loaded.tokenizer is not None
    device = await open_device("reference")
    runtime = await Runtime.open(device, build(loaded.model, generate=True, tuning=device.info.tuning))
    await runtime.load(loaded.weights)
    return await complete(runtime, loaded.tokenizer, prompt, config)


def test_sample_writes_the_text_and_nothing_else(cli: Cli, finished: Path) -> None:
    flags = (
        "--device",
        "reference",
        "--tokens",
        "20",
        "--temperature",
        "0.9",
        "--top-k",
        "50",
        "--top-p",
        "0.9",
    )
    texts = [
        cli.done("sample", finished, "--prompt", "Alice", *flags, "--seed", seed) for seed in ("7", "7", "8")
    ]
    config = SampleConfig(tokens=20, temperature=0.9, top_k=50, top_p=0.9, seed=7)
    assert texts[0] == texts[1] == asyncio.run(sampled(finished, "Alice", config))
    assert texts[0] != texts[2]
    folder = checkpoint.load(finished).folder
    assert cli.done("sample", folder, "--prompt", "Alice", *flags, "--seed", "7") == texts[0]


def test_sample_continues_many_prompts(cli: Cli, finished: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(["The cat", "Two\nlines"]))
    flags = ["--device", "reference", "--tokens", "5", "--seed", "3"]
    lines = cli.done("sample", finished, "--prompts", prompts, *flags).splitlines()
    found = [json.loads(line) for line in lines]
    assert [entry["prompt"] for entry in found] == ["The cat", "Two\nlines"]
    for entry in found:
        assert entry["text"] == cli.done("sample", finished, "--prompt", entry["prompt"], *flags)


@pytest.mark.parametrize(
    ("body", "prompt"), [("Schöne Alice", "Schöne Alice"), ("\ufeffa\r\nb\rc", "a\nb\nc")]
)
def test_sample_reads_its_prompt_from_stdin(
    body: str, prompt: str, cli: Cli, finished: Path, tmp_path: Path
) -> None:
    """As the text of the training is read: without a BOM, and with LF line ends."""
    flags = ("--device", "reference", "--tokens", "12")
    (tmp_path / "prompt").write_bytes(body.encode())
    with (tmp_path / "prompt").open() as stdin:
        result = run("sample", finished, "--prompt", "-", *flags, stdin=stdin)
    assert result.err == ""
    assert result.out == cli.done("sample", finished, "--prompt", prompt, *flags)


def test_sample_takes_a_folder_with_gpt2s_own_files(cli: Cli, finished: Path, tmp_path: Path) -> None:
    """As a GPT-2 is downloaded: vocab.json and merges.txt in place of a tokenizer.json."""
    loaded = checkpoint.load(finished)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((loaded.folder / name).read_bytes())
    model = json.loads((loaded.folder / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    flags = ("--device", "reference", "--tokens", "12", "--prompt", "Alice")
    assert cli.done("sample", tmp_path, *flags) == cli.done("sample", finished, *flags)
    (tmp_path / "vocab.json").unlink()
    tokenizer = loaded.folder / "tokenizer.json"
    assert cli.done("sample", tmp_path, *flags, "--tokenizer", tokenizer) == cli.done(
        "sample", finished, *flags
    )


# eval


def test_eval_scores_the_runs_own_validation_text(
    cli: Cli, finished: Path, story: Path, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "report.json"
    out = cli.done("eval", finished, "--device", "reference", "--out", path)
    report = validate(json.loads(path.read_text()))
    _, validation = corpus.split(corpus.read_path(story))
    assert report.text is not None
    assert report.text.bytes == sum(len(document.text.encode()) for document in validation)
    assert f"{report.text.bits_per_byte:.4f} bits per byte" in out
    assert report.seed == TrainConfig().seed
    assert report.checkpoint.step == 10
    assert (report.lambada, report.blimp) == (None, None)


def test_eval_scores_benchmarks(cli: Cli, finished: Path, tmp_path: Path) -> None:
    passages = [{"text": f"The cat sat on the {word}"} for word in ("mat", "hat", "bat")]
    (tmp_path / "lambada.jsonl").write_text("\n".join(map(json.dumps, passages)))
    pairs = [{"sentence_good": f"The cats sit {n}.", "sentence_bad": f"The cats sits {n}."} for n in range(3)]
    for name in ("agreement", "other"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    path = tmp_path / "report.json"
    out = cli.done(
        *("eval", finished, "--device", "reference", "--limit", "2", "--out", path),
        *("--lambada", tmp_path / "lambada.jsonl"),
        *("--blimp", tmp_path / "agreement.jsonl", tmp_path / "other.jsonl"),
    )
    report = validate(json.loads(path.read_text()))
    assert report.text is None
    assert report.lambada is not None
    assert report.blimp is not None
    assert (report.lambada.examples, report.lambada.available) == (2, 3)
    assert (report.blimp.pairs, report.blimp.available, len(report.blimp.paradigms)) == (4, 6, 2)
    assert [Path(facts.name).name for facts in report.data] == [
        "lambada.jsonl",
        "agreement.jsonl",
        "other.jsonl",
    ]
    assert f"LAMBADA  {report.lambada.accuracy:.2%}" in out
    assert f"BLiMP    {report.blimp.accuracy:.2%}" in out


# bench


def test_bench_is_wired_to_its_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def timed(args: Any) -> int:
        print(args.parts, args.device)
        return 0

    monkeypatch.setattr("trainer.cli.bench.main", timed)
    assert main(["bench", "matmul", "--device", "reference"]) == 0
    assert capsys.readouterr().out == "['matmul'] reference\n"
