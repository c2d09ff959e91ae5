"""The errors that a user can cause. Each says what is wrong, with what value, and what to do about it.

The CLI prints `str(error)` as one line on stderr and exits with code 2; the page shows the same line.
"""


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


class FetchError(CorpusError):
    """A book that could not be fetched, or whose bytes are not the expected ones."""


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
