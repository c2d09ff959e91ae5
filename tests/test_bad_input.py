"""Bad input: one line on stderr that names the thing and the remedy, code 2, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import ROOT, TINY, Cli, everything_in, read_log, refusal, run, write_story
from raw_server import FAULTS, OZ, OZ_BODY, SILENT_FAULTS, Answer, GitHub, serving

from trainer import checkpoint, corpus, gutenberg
from trainer.cache import CACHE_VARIABLE
from trainer.gutenberg import Retry

pytest_plugins = ("cli_fixtures",)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A run folder to ask for; that nothing is left of it is checked when the test ends."""
    yield tmp_path / "deep" / "run"
    assert not (tmp_path / "deep").exists()


@pytest.fixture
def broken(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run's checkpoint folder, to damage."""
    return Path(shutil.copytree(checkpoint.load(finished).folder, tmp_path / "broken"))


# Devices.


@pytest.mark.parametrize("command", ["train", "devices", "sample"])
def test_no_adapter(command: str, out: Path, story: Path, finished: Path) -> None:
    arguments = {"train": ["--sources", story, "--out", out], "devices": [], "sample": [finished]}[command]
    nowhere = {"VK_ICD_FILENAMES": "/nowhere/icd.json", "VK_DRIVER_FILES": "/nowhere/icd.json"}
    line = refusal(run(command, *arguments, env=nowhere))
    assert line.startswith("no GPU adapter was found: ")
    assert "--device reference" in line


@pytest.mark.parametrize(("device", "package"), [("auto", "wgpu"), ("dawn", "wgpudawn")])
def test_graphics_library_that_cannot_be_loaded(
    device: str, package: str, finished: Path, tmp_path: Path
) -> None:
    """It is there, and something that it needs itself is not."""
    (tmp_path / f"{package}.py").write_text("import what_it_needs")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    line = refusal(run("sample", finished, "--device", device, env={"PYTHONPATH": path}))
    assert "No module named 'what_it_needs'" in line
    assert f"pip install {package}" in line


def test_unknown_device(cli: Cli, out: Path, story: Path) -> None:
    line = cli.refused("train", "--sources", story, "--out", out, "--device", "abacus")
    assert re.match(r"no device 'abacus': choose auto, reference, dawn, or one of 0 \(.+\)", line)


@pytest.mark.parametrize(
    "flags",
    [
        ["--width", "8192", "--heads", "64", "--vocab", "60000"],
        ["--layers", "1000000000"],
        ["--batch", "2048", "--width", "768", "--heads", "12", "--context", "1024"],
    ],
)
def test_model_that_does_not_fit(flags: list[str], cli: Cli, out: Path, story: Path) -> None:
    line = cli.refused("train", "--out", out, "--sources", story, *flags)
    assert re.search("the model needs|takes .* MiB|a batch of", line)
    assert "choose a smaller" in line


# Flags.


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--preset", "huge"], "unknown preset 'huge': choose one of nano, micro, mini, small, gpt2"),
        (["--heads", "5", "--width", "48"], "width 48 is not a multiple of heads 5: try --width 50"),
        (["--vocab", "65536"], "vocab is 65536: give --vocab a value from 1 to 65,535"),
        (["--steps", "100000000"], "steps is 100000000: give --steps a value from 1 to 8,388,608"),
        (["--steps", "10", "--warmup", "10"], "warmup 10 does not end before step 10"),
        (["--steps", "ten"], "argument --steps: 'ten' is not a whole number"),
        (["--steps", "-3"], "argument --steps: '-3' is not a whole number"),
        (["--learning-rate", "nan"], "argument --learning-rate: 'nan' is not a number from 0 up"),
        (["--learning-rate", "inf"], "argument --learning-rate: 'inf' is not a number from 0 up"),
        (["--batch", "0"], "batch is 0: give --batch a value from 1 up"),
        (["--beta1", "2"], "beta1 is 2.0: give --beta1 a value from 0 to below 1"),
        (["--beta2", "1"], "beta2 is 1.0: give --beta2 a value from 0 to below 1"),
        (["--epsilon", "1e-46"], "epsilon is 1e-46: give --epsilon a value from 1e-37 up"),
        (["--validation-share", "1"], "validation share is 1.0: choose a share between 0 and 1"),
        (["--colour", "red"], "unrecognized arguments: --colour red: see trainer train --help"),
        (["--step", "3"], "unrecognized arguments: --step 3: see trainer train --help"),
        (["--tokenizer", "/nowhere/tokenizer.json"], "/nowhere/tokenizer.json: cannot be read"),
        (["--from", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_bad_flags_of_train(flags: list[str], line: str, cli: Cli, out: Path, story: Path) -> None:
    assert cli.refused("train", "--sources", story, "--out", out, *flags).startswith(line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no command given: choose one of corpus, tokenizer, "),
        (["tarin"], "argument COMMAND: invalid choice: 'tarin'"),
        (["sample"], "the following arguments are required: CHECKPOINT: see trainer sample --help"),
        (["sample", "/nowhere"], "there is no folder /nowhere"),
        (["eval", "/nowhere"], "there is no folder /nowhere"),
        (["budget", "--preset", "huge"], "unknown preset 'huge'"),
        (["budget", "--gflops", "0"], "--gflops is 0"),
        (["budget", "--tokens", "8"], "--tokens 8 is less than one window"),
        (["tokenizer"], "give one of --out and --tokenizer"),
        (["tokenizer", "--tokenizer", "x.json"], "--tokenizer without --show"),
        (["bench", "everything"], "nothing called 'everything' can be timed"),
        (["bench", "steps", "--preset", "huge"], "there is no workload 'huge': choose from nano, "),
        (
            ["bench", "matmul", "--size", "8", "8192x50304x768"],
            "the b of matmul NN 8192x50304x768 takes 147 MiB, over a binding's 128 MiB: give a smaller",
        ),
        (["train", "--sources", "\udcffx.txt"], r"'\udcffx.txt' is not UTF-8: give text in UTF-8, or rename"),
        (["train", "--sample-prompt=\udcff"], r"'--sample-prompt=\udcff' is not UTF-8"),
        (["sample", "f\udcfe"], r"'f\udcfe' is not UTF-8"),
        (["eval", "/nowhere", "--text", "\udcff", "--out", "rep.json"], r"'\udcff' is not UTF-8"),
        (["bench", "matmul", "--size", "8x8"], "argument --size: '8x8' is not a size such as 256, "),
    ],
)
def test_bad_arguments(arguments: list[str], line: str, cli: Cli) -> None:
    assert cli.refused(*arguments).startswith(line)


def test_bad_flags_of_sample(cli: Cli, finished: Path) -> None:
    for flag, value in (("--temperature", "-1"), ("--top-p", "0"), ("--tokens", "0"), ("--top-k", "x")):
        assert flag.lstrip("-") in cli.refused("sample", finished, "--device", "reference", flag, value)


def test_bad_lists_of_prompts(cli: Cli, finished: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    assert "cannot read" in cli.refused("sample", finished, "--prompts", prompts)
    for text, said in (
        ("[", "is not JSON"),
        ('{"a": 1}', "is no list of texts"),
        ("[1]", "is no list of texts"),
    ):
        prompts.write_text(text)
        assert said in cli.refused("sample", finished, "--prompts", prompts)
    assert "exclude each other" in cli.refused("sample", finished, "--prompts", prompts, "--prompt", "a")


def test_prompt_that_is_not_utf8(finished: Path, tmp_path: Path) -> None:
    reference = ("--device", "reference")
    assert "is not UTF-8" in refusal(run("sample", finished, *reference, "--prompt", os.fsdecode(b"caf\xe9")))
    prompt = tmp_path / "prompt.txt"
    prompt.write_bytes(b"caf\xe9")
    with prompt.open("rb") as stdin:
        line = refusal(run("sample", finished, *reference, "--prompt", "-", stdin=stdin))
    assert line.startswith("the prompt is not UTF-8 (byte 3)")


# Texts.


@pytest.mark.parametrize(
    ("name", "body", "line"),
    [
        ("none.txt", None, r".*none\.txt does not exist: check the path"),
        ("empty.txt", b" \n", r".*empty\.txt is empty"),
        ("binary.txt", b"PK\x03\x04\0\0", r".*binary\.txt is binary, not text"),
        ("latin.txt", b"caf\xe9 " * 100, r".*latin\.txt is not UTF-8 \(byte 0xe9 at 3\)"),
        ("lines.jsonl", b'{"title": "x"}\n', r".*lines\.jsonl:1 has no text"),
        ("short.txt", b"Once upon.\n", r"the training text has \d+ tokens and one window takes 9"),
    ],
)
def test_text_that_cannot_be_used(
    name: str, body: bytes | None, line: str, cli: Cli, out: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    if body is not None:
        path.write_bytes(body)
    assert re.match(line, cli.refused("train", "--sources", path, "--out", out, *TINY, "--steps", "4"))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("gutenberg:999999999", "book 999999999 is not in the manifest"),
        ("gutenberg:Dracula", "'Dracula' names no book"),
        ("nonsense", "nonsense does not exist: check the path"),
    ],
)
def test_unknown_source(source: str, line: str, cli: Cli, out: Path) -> None:
    assert cli.refused("train", "--sources", source, "--out", out, *TINY).startswith(line)
    assert cli.refused("corpus", source, "--out", out).startswith(line)


def test_bundled_book_that_was_changed(
    cli: Cli, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = tmp_path / "books"
    shutil.copytree(corpus.bundled() / OZ.repo, books / OZ.repo)
    (books / OZ.repo / "55.txt").write_bytes(OZ_BODY + b"One more line.\n")
    monkeypatch.setattr(corpus, "bundled", lambda: books)
    assert "55.txt is not the file of the manifest: restore it" in cli.refused("train", "--out", out)


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GitHub]:
    """A stand-in for GitHub that the command line talks to, without pauses between attempts."""
    with serving(monkeypatch) as server:
        monkeypatch.setenv(gutenberg.BASE_VARIABLE, server.base)
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
        monkeypatch.setattr(gutenberg, "Retry", lambda: Retry(first=0.0))
        yield server


@pytest.mark.parametrize(("fault", "problem", "kind"), [*FAULTS, *SILENT_FAULTS])
def test_server_that_fails(
    fault: Answer, problem: str, kind: str, cli: Cli, github: GitHub, out: Path, tmp_path: Path
) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, *[fault] * Retry().attempts)
    line = cli.refused("train", "--sources", "gutenberg:55", "--out", out, *TINY)
    assert problem in line
    assert line.endswith(f"try again later, or set {gutenberg.BASE_VARIABLE} to a mirror")
    assert everything_in(tmp_path) == []


def test_book_that_the_server_lacks(cli: Cli, github: GitHub, out: Path, tmp_path: Path) -> None:
    line = cli.refused("corpus", "gutenberg:Nothing_424242", "--out", out)
    assert "has no 424242-0.txt or 424242.txt or 424242-8.txt: check the repository's name" in line
    assert everything_in(tmp_path) == []


# Tokenizers.


@pytest.mark.parametrize("vocab", ["65536", "256", "0"])
def test_vocabulary_out_of_range(vocab: str, cli: Cli, tmp_path: Path, story: Path) -> None:
    out = tmp_path / "tokenizer.json"
    cli.refused("tokenizer", "--sources", story, "--vocab", vocab, "--out", out)
    assert everything_in(tmp_path) == []


def test_tokenizer_and_vocabulary_that_contradict_each_other(
    cli: Cli, out: Path, story: Path, finished: Path
) -> None:
    line = cli.refused(
        "train", "--sources", story, "--out", out, *TINY, "--vocab", "300", "--tokenizer", finished
    )
    assert line == "--vocab is 300 and the tokenizer has 270 tokens: leave --vocab out"


def test_folder_without_a_tokenizer(cli: Cli, tmp_path: Path) -> None:
    assert "holds no tokenizer" in cli.refused("tokenizer", "--tokenizer", tmp_path, "--show", "text")


# Checkpoints.


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("config.json", {"n_layer": 2}, "is missing"),
        ("config.json", {"n_embd": 16}, "has shape"),
        ("config.json", {"vocab_size": 280}, "has shape"),
        ("config.json", {"model_type": "llama"}, "model_type is 'llama'"),
    ],
)
def test_config_that_is_not_the_weights(
    name: str, change: dict[str, object], problem: str, cli: Cli, broken: Path
) -> None:
    edit_json(broken / name, **change)
    for command in (
        ["sample", broken],
        ["eval", broken],
        ["train", "--from", broken, "--out", broken / "new"],
    ):
        assert problem in cli.refused(*command)
    assert not (broken / "new").exists()


def test_tokenizer_that_is_not_the_models(cli: Cli, broken: Path, story: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    cli.done("tokenizer", "--sources", story, "--vocab", "280", "--out", other)
    assert "has 280 tokens" in cli.refused("sample", broken, "--tokenizer", other)
    shutil.copy(other, broken / "tokenizer.json")
    assert "has 280 tokens, the model's vocabulary 270" in cli.refused("sample", broken)
    (broken / "tokenizer.json").unlink()
    assert cli.refused("sample", broken).endswith("has no tokenizer: name one with --tokenizer")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer_state.json"])
def test_checkpoint_that_is_cut_short(name: str, cli: Cli, finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    path = checkpoint.load(copy).folder / name
    path.write_bytes(path.read_bytes()[:-100])
    before = everything_in(copy)
    assert name in cli.refused("train", "--resume", copy, "--device", "reference")
    assert everything_in(copy) == before


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--preset", "nano"], "--resume and --preset exclude each other"),
        (["--out", "elsewhere"], "--resume and --out exclude each other"),
        (["--overwrite"], "--resume and --overwrite exclude each other"),
        (["--from", "elsewhere"], "--resume and --from exclude each other"),
        (["--layers", "3"], "--layers cannot be changed here: the model of a run stays as it is"),
        (["--batch", "3"], "--resume and --batch exclude each other"),
        (["--steps", "9"], "--steps 9 is before step 10"),
        (["--sources", "OTHER"], "was trained on other tokens: resume with the same sources and tokenizer"),
        (["--validation-share", "0.3"], "was trained on other tokens"),
    ],
)
def test_run_that_cannot_be_resumed_so(
    flags: list[str], problem: str, cli: Cli, finished: Path, tmp_path: Path
) -> None:
    other = write_story(tmp_path / "other.txt", 15_000)
    flags = [str(other) if flag == "OTHER" else flag for flag in flags]
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    # a --steps that leaves something to do, unless that is what is tested
    more = [] if "--steps" in flags or "--layers" in flags else ["--steps", "12"]
    assert problem in cli.refused("train", "--resume", finished, "--device", "reference", *more, *flags)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_folder_that_is_no_run(cli: Cli, tmp_path: Path) -> None:
    assert "there is no folder" in cli.refused("train", "--resume", tmp_path / "none")
    cli.refused("train", "--resume", tmp_path)
    assert everything_in(tmp_path) == []


def test_run_is_not_overwritten_unasked(cli: Cli, finished: Path, story: Path) -> None:
    before = everything_in(finished)
    line = cli.refused("train", "--sources", story, "--out", finished, *TINY, "--steps", "4")
    assert "holds a run already: go on with --resume" in line
    cli.refused("train", "--sources", "/nowhere", "--out", finished, *TINY, "--overwrite")
    assert everything_in(finished) == before


# Places to write to.


@pytest.mark.parametrize("command", ["train", "corpus", "tokenizer", "eval"])
def test_out_inside_a_file(command: str, cli: Cli, story: Path, finished: Path) -> None:
    arguments = {
        "train": ["--sources", story, *TINY],
        "corpus": [story],
        "tokenizer": ["--sources", story, "--vocab", "270"],
        "eval": [finished, "--text", story, "--device", "reference"],
    }[command]
    before = story.read_bytes()
    line = cli.refused(command, *arguments, "--out", story / "deep" / "out")
    assert line.startswith("cannot write ")
    assert line.endswith("choose a folder that can be written; what was there before is intact")
    assert story.read_bytes() == before


def test_folder_that_cannot_be_written(
    cli: Cli, out: Path, story: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root writes everywhere, so the system's refusal is made up."""

    def refuse(self: Path, *arguments: object, **settings: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    line = cli.refused("train", "--sources", story, "--out", out, *TINY)
    assert line == f"cannot write {out} (Permission denied): choose a folder that can be written; " + (
        "what was there before is intact"
    )


FULL_DISK = """
import errno, os, sys
from trainer import storage
from trainer.cli import main
real = os.fsync
left = int(sys.argv.pop(1))
def fsync(descriptor):
    global left
    left -= 1
    if left < 0:
        raise OSError(errno.ENOSPC, "No space left on device")
    real(descriptor)
os.fsync = fsync
sys.exit(main(sys.argv[1:]))
"""


def test_full_disk(finished: Path, story: Path, tmp_path: Path) -> None:
    """The disk fills up in the second save: the first one stays, whole, and can be resumed."""
    out = tmp_path / "run"
    script = tmp_path / "full_disk.py"
    script.write_text(FULL_DISK)
    flags = ("--sources", story, "--out", out, *TINY, "--steps", "8", "--save-every", "3")
    line = refusal(run("12", "train", *flags, program=[str(script)]))
    assert line.startswith(f"cannot write {out}")
    assert line.endswith("(No space left on device): free some space; what was there before is intact")
    assert checkpoint.load(out, resume=True).step == 3
    assert [path for path in everything_in(out) if ".tmp-" in path] == []
    assert read_log(out)[-1]["reason"] == "failed"
    resumed = run("train", "--resume", out, "--device", "reference")
    assert (resumed.code, resumed.err) == (0, "")
    assert checkpoint.load(out).step == 8


def test_full_disk_at_the_first_save_leaves_no_checkpoint(story: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    script = tmp_path / "full_disk.py"
    script.write_text(FULL_DISK)
    line = refusal(
        run("1", "train", "--sources", story, "--out", out, *TINY, "--steps", "4", program=[str(script)])
    )
    assert "(No space left on device): free some space" in line
    assert everything_in(out) == ["log.jsonl"]
