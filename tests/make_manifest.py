"""Writes trainer/data/gutenberg_manifest.json from a folder of GITenberg repositories.

    python tests/make_manifest.py FOLDER    # FOLDER/<Repo>_<id>/<id>-0.txt, <id>.txt, <id>-8.txt

The folder holds what GitHub serves at /GITenberg/<Repo>_<id>/master/, byte for byte: the sizes and SHA-256
sums written here are what the trainer checks every fetched book against.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from trainer import cleaning, gutenberg

MANIFEST = Path(__file__).parents[1] / "trainer" / "data" / "gutenberg_manifest.json"


def describe(repository: Path) -> dict[str, object]:
    """The manifest's entry of one repository. Raises ValueError if it holds no book."""
    id = int(repository.name.rpartition("_")[2])
    files = [repository / name for name in gutenberg.variants(id) if (repository / name).is_file()]
    if not files:
        raise ValueError(f"{repository} holds none of {', '.join(gutenberg.variants(id))}")
    text = cleaning.normalise_newlines(cleaning.decode(files[0].read_bytes()))
    header = cleaning.header_fields(text)
    return {
        "id": id,
        "repo": repository.name,
        "title": header["title"],
        "author": header["author"],
        "language": header["language"],
        "licence": gutenberg.licence_of(text),
        "files": [
            {
                "name": file.name,
                "bytes": file.stat().st_size,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
            for file in files
        ],
    }


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: make_manifest.py FOLDER", file=sys.stderr)
        return 2
    repositories = [path for path in Path(arguments[0]).iterdir() if path.is_dir()]
    books = sorted((describe(repository) for repository in repositories), key=lambda book: str(book["repo"]))
    MANIFEST.parent.mkdir(exist_ok=True)
    MANIFEST.write_text(json.dumps({"books": books}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{MANIFEST}: {len(books)} books")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
