"""The bundle: what it holds, its hashes, its size, that the same inputs make the same bytes; the policy."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from demo import build, bytecode, wheel
from demo.policy import inline_scripts, policy, with_policy
from trainer import corpus

ROOT = Path(__file__).parent.parent
MEGABYTE = 1_000_000
BUDGET = 7.6 * MEGABYTE  # compressed; with the page around it a first visit stays under 8 (test_site.py)
FIGURES_BUDGET = 0.3 * MEGABYTE  # the post's live figures, GPT-2's vocabulary among them


@pytest.fixture(scope="module")
def bundle() -> dict[str, bytes]:
    return build.collect()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that the build reads, which a test may change."""
    for name in ("demo", "trainer", "shaders", "docs/books"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("package.json", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "node_modules").mkdir()
    for name in ("pyodide", "uplot"):
        (tmp_path / "node_modules" / name).symlink_to(ROOT / "node_modules" / name)
    return tmp_path


def manifest_of(bundle: dict[str, bytes]) -> dict:
    return json.loads(bundle["manifest.json"])


def names_in(archive: bytes) -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(archive)).namelist())


def test_the_manifest_names_every_file_with_its_size_and_hash(bundle: dict[str, bytes]) -> None:
    manifest = manifest_of(bundle)
    assert set(manifest["files"]) == set(bundle) - {"manifest.json"}
    for name, entry in manifest["files"].items():
        body = bundle[name]
        assert entry == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}, name
    assert set(manifest["boot"]) | set(manifest["books"]) <= set(bundle)
    assert re.fullmatch("[0-9a-f]{16}", manifest["version"])


def test_it_holds_the_books_that_a_checkout_bundles(bundle: dict[str, bytes]) -> None:
    books = {d.source: d for d in corpus.read_bundled()}
    assert set(manifest_of(bundle)["books"]) == set(books)


def test_it_holds_the_page_and_what_it_imports(bundle: dict[str, bytes]) -> None:
    modules = {name: body.decode() for name, body in bundle.items() if name.endswith(".js")}
    assert {"protocol.js", "page/vendor/uplot.js"} <= set(modules)
    for name, code in modules.items():
        if not name.startswith("page/vendor/"):
            for target in re.findall(r'^(?:import|export)\b[^;]*?from "(\.[^"]+)"', code, re.MULTILINE):
                wanted = (ROOT / "x" / name).parent.joinpath(target).resolve().relative_to(ROOT / "x")
                assert wanted.as_posix() in bundle, f"{name} imports {target}"


def test_the_wheel_holds_trainer_shaders_and_the_pages_python(bundle: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle[build.WHEEL])) as archive:
        assert archive.testzip() is None
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        record = archive.read(f"{wheel.NAME}-0.1.0.dist-info/RECORD").decode().split()
        for line in record[:-1]:
            name, digest, size = line.split(",")
            body = archive.read(name)
            hashed = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={hashed}", len(body))
    names = {name.removesuffix("c") if name.endswith(".pyc") else name for name in names}
    trainer = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trainer").rglob("*.py")}
    native = {name for name in trainer if name.startswith(wheel.NATIVE)}
    assert all(any(name.startswith(part) for name in native) for part in wheel.NATIVE)
    shaders = {f"trainer/shaders/{path.name}" for path in (ROOT / "shaders").glob("*.wgsl")}
    assert (trainer - native) | shaders | {
        "trainer/data/gutenberg_manifest.json",
        "demo/protocol.py",
    } <= names
    assert not names & (native | {f"demo/{name}" for name in wheel.BUILD_TIME})
    assert not [name for name in names if "books/" in name or "__pycache__" in name]


def test_bytecode_stands_for_what_the_page_imports(bundle: dict[str, bytes]) -> None:
    modules = names_in(bundle[build.WHEEL])
    assert {
        "trainer/train.pyc",
        "trainer/kernels.pyc",
        "demo/protocol.pyc",
        "trainer/export.py",  # source: nothing imports it when the page starts
    } <= modules
    assert not {name for name in modules if name.endswith(".py") and f"{name}c" in modules}
    library = names_in(bundle[build.STDLIB])
    assert {"asyncio/__init__.pyc", "encodings/utf_8.py", "json/__init__.pyc", "_pyodide/_base.pyc"} <= {
        *library,
        *(name.removesuffix("c") for name in library),
    }
    with zipfile.ZipFile(io.BytesIO(bundle[build.STDLIB])) as archive:
        flags = {archive.read(name)[4:8] for name in library if name.endswith(".pyc")}
    assert flags == {b"\1\0\0\0"}, "taken unchecked, without the time of a source"


def test_no_import_of_the_pages_python_was_trimmed(bundle: dict[str, bytes]) -> None:
    """Imports inside of functions, too, which the build does not see."""
    library = {name.removesuffix("c") for name in names_in(bundle[build.STDLIB])}
    gone = [
        name for name in bytecode.UNUSED if not any(f"{there}/".startswith(f"{name}/") for there in library)
    ]
    trimmed = tuple(name.removesuffix(".py").replace("/", ".") + "." for name in gone)
    assert "xml." in trimmed
    for name, path in wheel.sources(ROOT).items():
        if name.endswith(".py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
            found |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert [imported for imported in found if f"{imported}.".startswith(trimmed)] == [], name


def test_the_build_time_modules_are_those_that_exist() -> None:
    assert [name for name in sorted(wheel.BUILD_TIME) if not (ROOT / "demo" / name).is_file()] == []


def test_the_lock_knows_our_wheel_alone(bundle: dict[str, bytes]) -> None:
    lock = json.loads(bundle[build.LOCK])
    assert list(lock["packages"]) == [wheel.NAME]
    entry = lock["packages"][wheel.NAME]
    assert f"pyodide/{entry['file_name']}" == build.WHEEL
    assert entry["sha256"] == hashlib.sha256(bundle[build.WHEEL]).hexdigest()
    assert lock["info"]["python"].startswith("3.14")


def test_the_notices_name_the_versions_of_package_json(bundle: dict[str, bytes]) -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]
    text = bundle["NOTICES.txt"].decode()
    assert [name for name, version in wanted.items() if f"`{name}` {version}" not in text] == []
    assert json.loads((ROOT / "package-lock.json").read_text())["packages"][""]["dependencies"] == wanted


def test_the_bundle_stays_within_its_budget(bundle: dict[str, bytes]) -> None:
    """Every file, as gzip makes it, but the recorded runs, which only a page without WebGPU needs; and, by
    itself, what the post's figures load, as the demo does without.
    """
    sizes = {name: len(gzip.compress(body, 6)) for name, body in bundle.items()}
    figures = sum(size for name, size in sizes.items() if name.startswith("figures/"))
    total = sum(size for name, size in sizes.items() if not name.endswith(".jsonl")) - figures
    for name in sorted(sizes, key=lambda name: -sizes[name])[:12]:
        print(f"{sizes[name] / MEGABYTE:6.3f} MB {name}")
    print(f"{total / MEGABYTE:6.3f} MB in all, compressed, and {figures / MEGABYTE:.3f} for the figures")
    assert total <= BUDGET
    assert figures <= FIGURES_BUDGET


def test_the_same_inputs_make_the_same_bytes(bundle: dict[str, bytes], checkout: Path) -> None:
    for path in (checkout / "trainer").rglob("*.py"):
        path.touch()
    assert build.collect(checkout) == bundle


def test_a_stale_bundle_is_made_anew_and_a_fresh_one_kept(checkout: Path) -> None:
    first = build.bundle_folder(checkout)
    made = (first / "manifest.json").stat().st_mtime_ns
    assert build.bundle_folder(checkout) == first
    assert (first / "manifest.json").stat().st_mtime_ns == made
    with (checkout / "shaders" / "matmul.wgsl").open("a") as file:
        file.write("// changed\n")
    second = build.bundle_folder(checkout)
    assert second != first
    assert [path for path in second.parent.iterdir() if path.is_dir()] == [second]
    shutil.rmtree(second)
    assert (build.bundle_folder(checkout) / "manifest.json").is_file()


def test_missing_npm_packages_are_told(checkout: Path) -> None:
    (checkout / "node_modules" / "uplot").unlink()
    with pytest.raises(build.BuildError, match=r"npm package uplot 1\.6\.32 is needed.*run: npm ci"):
        build.bundle_folder(checkout)


# ---------------------------------------------------------------- the policy


def test_the_policy_allows_the_pages_own_scripts_by_hash_alone() -> None:
    page = (
        '<head><meta charset="utf-8"></head><script>a < b && c</script><script src="x.js"></script>'
        '<script type="application/json">{"no": "script"}</script><script type="module">b\n</script>'
    )
    assert inline_scripts(page) == ["a < b && c", "b\n"]
    content = policy(inline_scripts(page))
    digest = base64.b64encode(hashlib.sha256(b"b\n").digest()).decode()
    scripts = content.split("script-src ")[1].split(";")[0]
    assert f"'sha256-{digest}'" in scripts
    assert scripts.count("sha256-") == 2
    assert "unsafe-inline" not in scripts
    assert "'unsafe-eval'" not in scripts
    assert "'wasm-unsafe-eval'" in scripts
    protected = with_policy(page, content)
    assert protected.index("Content-Security-Policy") < protected.index("<script")


def test_a_page_that_cannot_take_the_policy_is_an_error() -> None:
    with pytest.raises(ValueError, match="a page without"):
        with_policy("<p>no head</p>", policy([]))
