"""Where what is kept between commands lies, and that damage to it shows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from trainer.cache import FolderCache, cache_folder, seal, unseal


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TABULA_CACHE": "/x/y", "XDG_CACHE_HOME": "/z"}, Path("/x/y")),
        ({"XDG_CACHE_HOME": "/z"}, Path("/z/tabula")),
        ({"XDG_CACHE_HOME": "relative"}, Path("/home/u/.cache/tabula")),
        ({"TABULA_CACHE": ""}, Path("/home/u/.cache/tabula")),
        ({}, Path("/home/u/.cache/tabula")),
    ],
)
def test_cache_folder(variables: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/u"))
    for name in ("TABULA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected


def test_folders_and_keys_are_kept_apart(tmp_path: Path) -> None:
    """Also keys that end alike, as two books' addresses may."""
    books, other = FolderCache("books", tmp_path), FolderCache("other", tmp_path)

    async def go() -> None:
        await books.put("https://a/11.txt", b"one")
        await books.put("https://b/11.txt", b"two")
        assert await books.get("https://a/11.txt") == b"one"
        assert await books.get("https://b/11.txt") == b"two"
        assert await books.get("https://c/11.txt") is None
        assert await other.get("https://a/11.txt") is None

    asyncio.run(go())


@pytest.mark.parametrize("body", [b"", b"\n", b"words"])
def test_a_seal_tells_every_cut_and_every_change(body: bytes) -> None:
    entry = seal(body)
    assert unseal(entry) == body
    for end in range(len(entry)):
        assert unseal(entry[:end]) is None
    for i in range(len(entry)):
        assert unseal(entry[:i] + bytes([entry[i] ^ 1]) + entry[i + 1 :]) is None
    assert unseal(entry + b"x") is None
