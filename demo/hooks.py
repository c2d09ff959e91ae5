"""MkDocs' hooks: the bundle becomes part of the site, the demo's markup of its page, and all pages get the
Content-Security-Policy.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from demo import build
from demo.policy import inline_scripts, policy, with_policy
from demo.site import figures
from trainer.errors import TrainerError

PLACE = "assets/tabula"  # of the bundle in the site; a folder of its version lies there
MARKUP = Path(__file__).parent / "page" / "demo.html"
MARK = "<!-- demo/page/demo.html -->"  # in docs/demo.md
STYLES = ("page/vendor/uplot.css", "page/demo.css")
SCRIPT = "page/demo.js"

_state = {"command": "build", "version": "", "bundle": ""}


def on_startup(command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    _state["command"] = command


def on_pre_build(config: MkDocsConfig) -> None:
    """Makes the bundle if it is missing or stale; says what to run if it cannot be made."""
    try:
        folder = build.bundle_folder()
    except TrainerError as error:
        raise PluginError(str(error)) from None
    _state.update(version=folder.name, bundle=str(folder))
    config.extra_css.extend(f"{PLACE}/{folder.name}/{name}" for name in STYLES if (folder / name).is_file())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    folder = build.bundle_folder()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            place = f"{PLACE}/{folder.name}/{path.relative_to(folder).as_posix()}"
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts live figures and the demo's markup where a page names them, each with its module."""
    up = posixpath.relpath(".", page.url or ".")
    bundle = f"{up}/{PLACE}/{_state['version']}"
    try:
        content = figures.fill(content, up, bundle, Path(_state["bundle"]))
    except figures.UnknownFigure as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None
    if MARK not in content:
        return content
    script = f'<script type="module" src="{bundle}/{SCRIPT}"></script>'
    # Instant navigation assigns to each [href], which throws on SVG's <use>; its older name is safe.
    markup = MARKUP.read_text(encoding="utf-8").replace("<use href=", "<use xlink:href=")
    return content.replace(MARK, f"{markup}\n{script}")


def on_post_build(config: MkDocsConfig) -> None:
    """Writes the policy into all pages; not under `mkdocs serve`, whose live reload is an inline script."""
    if _state["command"] == "serve":
        return
    paths = [path for path in Path(config.site_dir).rglob("*.html") if PLACE not in path.as_posix()]
    pages = {path: path.read_text(encoding="utf-8") for path in paths}
    content = policy(script for page in pages.values() for script in inline_scripts(page))
    for path, page in pages.items():
        path.write_text(with_policy(page, content), encoding="utf-8")
