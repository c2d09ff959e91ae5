"""What README.md, CONTRIBUTING.md and the site's pages say: commands run, snippets run, paths exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, TRANSFORMERS, blocks

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/design.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
STORY = "The sea was calm, and the old ship came home with the wind. 'Hello,' said the girl on the hill.\n"
(TREE,) = (block.splitlines() for block in blocks("README.md", "text") if block.startswith("trainer/"))
UNLISTED = {"__init__.py", "__main__.py"}


def small(line: str) -> str:
    """A documented command as it is run here: fewer steps and tokens; of make and pytest only the plan."""
    command = line.partition("#")[0].split()
    match command:
        case ["make", target]:
            return f"make -n -C {shlex.quote(str(ROOT))} {target}"
        case [".venv/bin/python", "-m", "pytest", *arguments]:
            arguments = ["--collect-only", *(a for a in arguments if a not in ("-n", "2"))]
            pytest_command = shlex.join([sys.executable, "-m", "pytest", *arguments])
            return f"(cd {shlex.quote(str(ROOT))} && {pytest_command})"
        case ["trainer", "train", "--resume", run, "--steps", _]:
            return shlex.join(["trainer", "train", "--resume", run, "--steps", "6"])
        case ["trainer", "train", "--from", *_]:  # keeps the tokenizer
            return f"{line} --steps 5 --warmup 1 --eval-batches 1 --sample-tokens 4"
        case ["trainer", "bench", *_]:
            return f"{line} --size 32 --steps 2 --seconds 0"
        case ["trainer", "train", *_]:
            return f"{line} --vocab 280 --steps 5 --warmup 1 --eval-batches 1 --sample-tokens 4"
        case ["trainer", *_] | [".", ".venv/bin/activate"]:
            return line
    raise AssertionError(f"no rule for running: {line}")


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the documents suppose it: with the environment, and with stories of one's own."""
    folder = tmp_path_factory.mktemp("playground")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "my-stories").mkdir()
    for name, times in (("sea", 40), ("hill", 20)):
        (folder / "my-stories" / f"{name}.txt").write_text(f"{name}\n\n{STORY * times}")
    return folder


@pytest.fixture(scope="module")
def output(playground: Path) -> str:
    """What the commands of README.md print, run one after another in one shell."""
    return run_script(playground, "README.md")


def run_script(playground: Path, document: str, *before: str) -> str:
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    script = "\n".join(["set -e", *before, *map(small, lines)])
    return run(playground, "sh", "-c", script)


def run(playground: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, cwd=playground, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_of_the_readme_run(output: str, playground: Path) -> None:
    assert "finished at step 6" in output
    assert (playground / "report.json").stat().st_size > 100


def test_what_the_readme_shows_is_what_a_run_prints(output: str) -> None:
    def shape(line: str) -> str:
        return re.sub(r"[\d.,]+", "#", re.sub(r"runs/\w+", "runs/x", line.partition(" on ")[0]))

    (shown,) = (block for block in blocks("README.md", "text") if "validation loss" in block)
    *lines, text = [line for line in shown.splitlines() if line != "..."]
    assert text.startswith("Once upon a time")
    printed = {shape(line) for line in output.splitlines()}
    assert [line for line in lines if shape(line) not in printed] == []


def test_the_commands_of_the_contributing_guide_run(playground: Path) -> None:
    output = run_script(playground, "CONTRIBUTING.md")
    assert "test_kernels.py" in output


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh", least=0)])
def test_the_commands_of_the_pages_run(playground: Path, page: str) -> None:
    """By a reader who has done what README.md says first."""
    assert run_script(playground, page, ". .venv/bin/activate")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python", least=0)])
def test_the_snippets_of_the_pages_run(playground: Path, page: str) -> None:
    for snippet in blocks(page, "python"):
        assert run(playground, sys.executable, "-c", snippet)


@pytest.mark.parametrize("document", [*DOCUMENTS, *PAGES])
def test_make_targets_exist(document: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"\bmake ([a-z-]+)`", (ROOT / document).read_text(encoding="utf-8"))
    assert [target for target in named if target not in targets] == []


def test_snippets_run(output: str, playground: Path) -> None:
    snippets = blocks("README.md", "python")
    here = [snippet for snippet in snippets if TRANSFORMERS not in snippet]
    assert len(here) == len(snippets) - 1, "tests/with_transformers.py runs the one with transformers"
    for snippet in here:
        assert run(playground, sys.executable, "-c", snippet)


# ---------------------------------------------------------------- paths


def tree() -> list[str]:
    """The paths of the README's tree, folders with a slash at their end."""
    folders: list[str] = []
    paths = []
    for line in TREE:
        depth, name = (len(line) - len(line.lstrip())) // 4, line.split()[0]
        paths.append("".join([*folders[:depth], name]))
        folders[depth:] = [name] if name.endswith("/") else []
    return paths


def test_the_tree_is_true() -> None:
    paths = tree()
    assert len(set(paths)) == len(paths)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_tree_is_complete() -> None:
    files = [path for folder in ("trainer", "shaders") for path in (ROOT / folder).rglob("*.*")]
    names = {path.relative_to(ROOT).as_posix() for path in files if path.suffix in (".py", ".json", ".wgsl")}
    assert len(names) > 50
    twins = {name for name in names if name.startswith("trainer/devices/twins/")}
    assert sorted(name for name in names - twins - set(tree()) if Path(name).name not in UNLISTED) == []
    assert {Path(name).stem for name in twins if Path(name).name not in UNLISTED} <= {
        path.stem for path in (ROOT / "shaders").glob("*.wgsl")
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    paths = re.findall(r"`((?:trainer|shaders|tests|docs)/[\w./-]+)`", text)
    assert links or paths
    assert [link for link in links if not ((ROOT / document).parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
