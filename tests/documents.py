"""The code blocks of the project's Markdown files."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRANSFORMERS = "from transformers import"  # a snippet that needs PyTorch: `make oracles` runs it


def blocks(document: str, language: str, least: int = 1) -> list[str]:
    """The fenced blocks of a language in a Markdown file, in their order; never fewer than `least`."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) >= least, f"{document} has no {language} block"
    return found
