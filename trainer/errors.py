"""The errors that a user can cause. Each says what is wrong, with what value, and what to do about it.

The CLI prints `str(error)` as one line on stderr and exits with code 2; the page shows the same line.
"""

from typing import Literal


class TrainerError(Exception):
    """Base of every error that bad input can cause: `problem` names the thing, `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = " ".join(problem.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(f"{self.problem}: {self.remedy}" if remedy else self.problem)


class ConfigError(TrainerError):
    """A configuration that contradicts itself, or a value out of range."""


class CorpusError(TrainerError):
    """Text that cannot be used: missing, empty, binary, not UTF-8, or too short."""


# What was wrong with a book that was to be fetched:
#   name     nothing that could be asked for: no book of that name, no http address
#   missing  the server has no such file
#   refused  the server does not give it
#   busy     the server asks to slow down (429)
#   network  no answer came, or the answer of a server that is out of order
#   damaged  what came is cut off, empty, or something else than a book
#   hash     what came is a book of the right length, and its SHA-256 is another one
FetchFailure = Literal["name", "missing", "refused", "busy", "network", "damaged", "hash"]


class FetchError(CorpusError):
    """A book that could not be fetched, or whose bytes are not the expected ones.

    `wait`: seconds that the server asked to wait before the next request, 0 where it asked for nothing.
    """

    def __init__(self, problem: str, remedy: str = "", *, kind: FetchFailure, wait: float = 0.0) -> None:
        super().__init__(problem, remedy)
        self.kind: FetchFailure = kind
        self.wait = wait


class TokenizerError(TrainerError):
    """A tokenizer file that cannot be used, or a vocabulary that cannot be trained."""


class CheckpointError(TrainerError):
    """A checkpoint that is missing, damaged, or disagrees with itself."""


class SafetensorsError(CheckpointError):
    """A safetensors file that the format's specification forbids."""


class DeviceError(TrainerError):
    """No usable GPU, or a model that does not fit the one there is."""


class StorageError(TrainerError):
    """The disk (or the browser's storage) is full or refuses to be written."""
