"""The tokens that a run trains on and is judged by."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Dataset:
    """Tokens of whole documents, each with end_of_text before it."""

    train: array[int]  # "H"
    validation: array[int]  # "H"
    text_bytes: int = 0  # of the text that they were made of

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens: a run may only be resumed on the same ones."""
        digest = hashlib.sha256(self.train.tobytes())
        digest.update(b"|")
        digest.update(self.validation.tobytes())
        return digest.hexdigest()
