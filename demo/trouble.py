"""What can go wrong in the page, in the words that the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainer.errors import FetchError, FetchFailure, TrainerError

STOPPED = "stopped"
PASSING: tuple[FetchFailure, ...] = ("busy", "network", "damaged")  # another try may do better


class Trouble(TrainerError):
    """Something that the page shows with a title and a note; `details` is technical text to copy.

    `retry`: seconds to wait before another try, 0 if any will do; None where trying again is no use.
    """

    def __init__(
        self, kind: str, title: str, note: str = "", details: str = "", retry: float | None = None
    ) -> None:
        super().__init__(title, note)
        self.kind, self.title, self.note, self.details = kind, title, note, details
        self.retry = retry

    def fields(self) -> dict[str, Any]:
        """As a message holds it."""
        names = ("kind", "title", "note", "details", "retry")
        return {name: getattr(self, name) for name in names}


def of(error: BaseException, details: str = "") -> Trouble:
    """Any error, as what a command replies."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, TrainerError):
        return Trouble("refused", error.problem, error.remedy, details)
    return Trouble("crash", "Python stopped", f"{type(error).__name__}: {error}", details)


def stopped() -> Trouble:
    return Trouble(STOPPED, "Stopped", "It was asked to end.")


def lost(step: int, saved: int, seconds: float, details: str, *, again: bool) -> Trouble:
    if again:
        return Trouble("lost_again", "The GPU stopped again", "A smaller batch is easier on it.", details)
    since = f"the {seconds:.0f} s since are repeated exactly" if step > saved else "nothing is lost"
    return Trouble(
        "lost",
        f"The GPU stopped at step {step:,}",
        f"The browser reset it. The run is safe up to step {saved:,}; {since}.",
        details,
    )


def quota(needed: int, left: int) -> Trouble:
    return Trouble(
        "quota",
        "Storage is full: not saving",
        f"Training goes on. A save needs {size(needed)}; {size(left)} is left. "
        "Delete a run, or export this one.",
    )


def network(failures: Sequence[FetchError], wanted: int) -> Trouble:
    """Of the `wanted` books, some did not arrive: one failure each."""
    kinds = {error.kind for error in failures}
    note = "The server did not send them."
    if "busy" in kinds:
        note = "GitHub asks us to slow down (429)."
    elif kinds == {"network"}:
        note = "The server does not answer."
    return Trouble(
        "network",
        f"{len(failures)} of {wanted} books did not arrive",
        note,
        "\n".join(error.problem for error in failures),
        max(error.wait for error in failures) if kinds.intersection(PASSING) else None,
    )


def wrong_hash(title: str, why: str) -> Trouble:
    return Trouble("hash", f"“{title}” is not what it should be", "Its hash differs; it was not kept.", why)


def no_model(title: str, why: str, details: str) -> Trouble:
    """A trained model that did not come."""
    return Trouble("shipped", f"“{title}” did not arrive", f"{why} What has arrived is kept.", details, 0)


def wrong_model(title: str, why: str) -> Trouble:
    return Trouble(
        "shipped", f"“{title}” is not what it should be", "A file's hash differs; it was not kept.", why
    )


def too_little(given: int, needed: int) -> Trouble:
    return Trouble(
        "too_little", "Too little text to train on", f"{size(given)} given; {size(needed)} are needed."
    )


def not_finite(step: int, in_a_row: int) -> Trouble:
    return Trouble(
        "not_finite",
        f"The loss stopped being a number at step {step:,}",
        f"{in_a_row} steps in a row were skipped. Try half the learning rate.",
    )


def other_tab() -> Trouble:
    return Trouble("other_tab", "This run is open in another tab", "Only one can train it.")


def crash(saved: int, details: str) -> Trouble:
    return Trouble("crash", "Python stopped", f"The run is safe up to step {saved:,}.", details)


def size(nbytes: int) -> str:
    """
    >>> size(3_100), size(13_400_000)
    ('3 KB', '13 MB')
    """
    return f"{nbytes / 1e6:,.0f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:,.0f} KB"


def event(trouble: Trouble) -> dict[str, Any]:
    """As an event for the page."""
    return {"event": "trouble", **trouble.fields()}
