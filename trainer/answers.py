"""Measured answers to the questions of plans, kept for the next run on the same device.

An entry of a `Cache` (a file in the user's cache folder natively, the browser's Cache API in the page) has
all answers of one device under one set of shaders: JSON, behind its own SHA-256. An answer counts as long as
the candidates are those that it was found among.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from trainer.cache import Cache, seal, unseal
from trainer.config import ModelConfig, TrainConfig, from_dict
from trainer.devices import Device, DeviceInfo
from trainer.errors import StorageError
from trainer.events import Notice, Reader
from trainer.kernels import Question, source, variants
from trainer.plan import Asked, Plan
from trainer.tune import Finding, questions, tune

Kept = dict[str, dict[str, str]]  # a question's key → {"candidates": their hash, "answer": one of them}


def identity(info: DeviceInfo) -> dict[str, str]:
    """What has to be the same for answers to hold: they are of a device, its driver and what drives it."""
    return {"name": info.name, "backend": info.backend, "driver": info.driver}


def entry_of(info: DeviceInfo) -> str:
    """The key of a device's entry in the cache: another one for other shaders."""
    text = json.dumps(identity(info)) + "".join(source(name) for name in variants())
    name = re.sub(r"[^A-Za-z0-9]+", "-", info.name).strip("-")
    return f"/tuning/{hashlib.sha256(text.encode()).hexdigest()[:16]}/{name}.json"


async def load(cache: Cache, info: DeviceInfo, on_event: Reader | None = None) -> Kept:
    """What is kept of a device; nothing, with a notice, where the entry is damaged or of another device."""
    found = await cache.get(entry_of(info))
    if found is None:
        return {}
    try:
        data = json.loads(unseal(found) or b"")
        if data["device"] != identity(info):
            raise ValueError(data["device"])
        return {
            key: {"candidates": str(kept["candidates"]), "answer": str(kept["answer"])}
            for key, kept in data["answers"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        if on_event:
            on_event(Notice("the kept measurements of kernels are damaged: they are left alone"))
        return {}


async def keep(cache: Cache, info: DeviceInfo, kept: Kept) -> None:
    """Replace what is kept of a device. Raises StorageError."""
    data = {"device": identity(info), "answers": kept}
    await cache.put(entry_of(info), seal(json.dumps(data, indent=1).encode()))


def answers_in(kept: Kept, asked: Iterable[Asked]) -> dict[str, str]:
    """The answers to these questions that still count."""
    found = {}
    for one in asked:
        known = kept.get(one.question.key)
        if known and known["candidates"] == _hash(one.question):
            found[one.question.key] = known["answer"]
    return found


def _hash(question: Question) -> str:
    text = "\n".join(sorted(map(str, question.candidates)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def answers(
    device: Device,
    model: ModelConfig,
    train: TrainConfig,
    cache: Cache,
    seconds: float,
    *,
    force: bool = False,
    on_event: Reader | None = None,
) -> tuple[dict[str, str], list[Finding]]:
    """All answers that are known of a device, by the questions' keys, and what was found just now: of what a
    training step asks and is not kept (with `force`: of all), as much as `seconds` are enough for. It is
    kept, too. Raises DeviceError.
    """
    kept = await load(cache, device.info, on_event)
    findings: list[Finding] = []
    if seconds > 0:
        asked = questions(model, train, device.info.tuning)
        known = {} if force else answers_in(kept, asked)
        missing = [one for one in asked if one.question.key not in known]
        findings = [finding async for finding in measure(device, missing, cache, kept, seconds, on_event)]
    new = {finding.question.key: str(finding.winner) for finding in findings}
    return {key: entry["answer"] for key, entry in kept.items()} | new, findings


async def measure(
    device: Device,
    asked: Iterable[Asked],
    cache: Cache,
    kept: Kept,
    seconds: float,
    on_event: Reader | None = None,
) -> AsyncIterator[Finding]:
    """What `tune` finds, kept at once beside what was `kept`: whatever ends it, nothing is measured in vain.
    Where it cannot be kept, it is measured again next time. Raises DeviceError.
    """
    kept = dict(kept)
    able = True
    async for finding in tune(device, asked, seconds, on_event):
        if able and finding.seconds:
            question = finding.question
            kept[question.key] = {"candidates": _hash(question), "answer": str(finding.winner)}
            try:
                await keep(cache, device.info, kept)
            except StorageError as error:
                able = False  # told once
                if on_event:
                    on_event(Notice(f"the measurements of kernels cannot be kept: {error}"))
        yield finding


# -------------------------------------------------------------------- a run's own


def of_run(plan: Plan, info: DeviceInfo) -> dict[str, Any]:
    """How a run's ops run, and where: part of its state, because other kernels add up in another order."""
    asked = {key: one.question for program in plan.programs.values() for key, one in program.asked.items()}
    return {
        "device": identity(info),
        "answers": {key: str(plan.tuning.choose(question)) for key, question in asked.items()},
    }


def from_run(state: Mapping[str, Any] | None, info: DeviceInfo, train: TrainConfig) -> dict[str, str] | None:
    """What a run that goes on has to take, so that it equals the uninterrupted one: what `of_run` kept, or
    nothing where it is from before there were answers. None for a run that begins, or that goes on otherwise:
    on another device, or in another precision.
    """
    if state is None or from_dict(TrainConfig, state["train"]).precision != train.precision:
        return None
    kept = state.get("tuning", {"device": identity(info), "answers": {}})
    return kept["answers"] if kept["device"] == identity(info) else None
