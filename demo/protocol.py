"""The messages between the page and its worker, as demo/protocol.js describes them."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, ...]] = {
    "boot": ("base", "manifest"),
    "measure": (),
    "bench": ("workload", "precision", "steps"),
    "tune": ("model", "train", "force"),
    "load": ("sources",),
    "preview": ("index",),
    "library": (),
    "train_tokenizer": ("vocab",),
    "use_tokenizer": ("run",),
    "try_tokenizer": ("text",),
    "tokenize": (),
    "estimate": ("model", "train"),
    "train": ("model", "train", "run", "base"),
    "pause": (),
    "resume": (),
    "stop": (),
    "generate": ("prompt", "config"),
    "stop_generating": (),
    "evaluate": (),
    "runs": (),
    "open_run": ("run",),
    "rename_run": ("run", "title"),
    "delete_run": ("run",),
    "export_run": ("run",),
    "import_run": ("zip",),
    "open_shipped": ("address", "entry"),
    "look_on": ("run",),
    "take_over": ("run",),
    "save": (),
}

EVENTS: dict[str, tuple[str, ...]] = {
    "loading": ("done", "total"),
    "merge": ("count", "total", "newest", "bytes_per_token"),
    "token": ("id", "text", "probability", "alternatives"),
    "trouble": ("kind", "title", "note", "details", "retry"),
}
