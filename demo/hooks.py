"""MkDocs' hooks: the bundle becomes part of the site, the demo's markup of its page; what the pages ask for
is filled in, and all of them get their card and the Content-Security-Policy.
"""

from __future__ import annotations

import posixpath
import re
from html import escape, unescape
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from demo import build
from demo.policy import inline_scripts, policy, with_policy
from demo.site import cards, figures, templates
from trainer.errors import TrainerError

PLACE = "assets/tabula"  # of the bundle in the site; a folder of its version lies there
MARKUP = Path(__file__).parent / "page" / "demo.html"
MARK = "<!-- demo/page/demo.html -->"  # in docs/demo.md
STYLES = ("page/vendor/uplot.css", "page/demo.css")
SCRIPT = "page/demo.js"
CARDS = "assets/cards"  # of the pages in the site
READING_TIME = "<!-- reading time -->"
WORDS_A_MINUTE = 230
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)  # those of Markdown; others bring their own box
COLUMN = re.compile(r"<th\b[^>]*>(.+?)</th>", re.DOTALL)
SEARCH = ('role="dialog"', 'role="dialog" aria-label="Search"')  # Material leaves it without a name

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


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in the figures, tables and kernels that a page asks for. Says which page asks in vain."""
    try:
        return templates.render(markdown, page.url)
    except (TrainerError, TemplateError) as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts live figures and the demo's markup where a page names them, each with its module."""
    content = TABLE.sub(scrolling, content.replace(READING_TIME, f"{reading_minutes(content)} minutes"))
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


def scrolling(table: re.Match[str]) -> str:
    """The table in a box that the keyboard reaches, too, where it is wider than the screen."""
    columns = ", ".join(re.sub(r"<[^>]+>", "", name) for name in COLUMN.findall(table[0]))
    label = escape(unescape(f"Table: {columns}"))
    return f'<div class="tb-scroll" tabindex="0" role="group" aria-label="{label}">{table[0]}</div>'


def reading_minutes(content: str) -> int:
    """How long the prose of a page takes to read; code and drawings are looked at, not read."""
    prose = re.sub(r"<(pre|svg|table|code)\b.*?</\1>", " ", content, flags=re.DOTALL)
    return max(1, round(len(re.sub(r"<[^>]+>", " ", prose).split()) / WORDS_A_MINUTE))


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Any) -> dict[str, Any]:
    """Draws the page's card, and tells the theme's template where it will be."""
    name = page.url.strip("/").replace("/", "-").lower() or "index"
    path = Path(config.site_dir) / CARDS / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    title = page.meta.get("title") or page.title or config.site_name
    path.write_bytes(cards.card(str(title), page.meta.get("description") or config.site_description or ""))
    context["card"] = f"{config.site_url}{CARDS}/{name}.png"
    return context


def on_post_build(config: MkDocsConfig) -> None:
    """Names the search in all pages and writes the policy into them; not under `mkdocs serve`, whose live
    reload is an inline script.
    """
    if _state["command"] == "serve":
        return
    paths = [path for path in Path(config.site_dir).rglob("*.html") if PLACE not in path.as_posix()]
    pages = {path: path.read_text(encoding="utf-8") for path in paths}
    content = policy(script for page in pages.values() for script in inline_scripts(page))
    for path, page in pages.items():
        path.write_text(with_policy(page.replace(*SEARCH), content), encoding="utf-8")
