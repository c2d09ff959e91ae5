"""The reference of the command line, made from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from trainer.cli import COMMANDS, parser_of
from trainer.config import PRESETS

UNNAMED_GROUPS = ("positional arguments", "options")  # argparse's own


def commands() -> str:
    """All commands of `trainer`, a section each, in Markdown."""
    return "\n\n".join(part for name in COMMANDS for part in _command(parser_of(name)[0], 2))


def presets() -> str:
    """The presets, as a Markdown table."""
    rows = [
        "| preset | parameters | layers | width | context | vocabulary | steps |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, p in PRESETS.items():
        m = p.model
        values = (m.parameters, m.layers, m.width, m.context, m.vocab, p.train.steps)
        rows.append(f"| `{name}` | {' | '.join(f'{value:,}' for value in values)} |")
    return "\n".join(rows)


def _command(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    anchor = parser.prog.removeprefix("trainer ").replace(" ", "-")
    yield f"{'#' * level} {parser.prog} {{ #{anchor} }}"
    if parser.description:
        yield _escaped(parser.description)
    nested: list[argparse.ArgumentParser] = []
    tables: dict[str, list[str]] = {}
    for group in parser._action_groups:
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction):
                nested += action.choices.values()
            elif not isinstance(action, argparse._HelpAction):
                title = "argument" if group.title in UNNAMED_GROUPS else str(group.title)
                tables.setdefault(title, []).append(f"| {_usage(action)} | {_help(action, parser)} |")
    for title, rows in tables.items():
        yield "\n".join([f"| {title} | what it does |", "|---|---|", *rows])
    if parser.epilog:
        yield f"```text\n{parser.epilog.rstrip()}\n```"
    for inner in nested:
        yield from _command(inner, level + 1)


def _usage(action: argparse.Action) -> str:
    """`--steps N`, or a positional's name."""
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    if not action.option_strings:
        return f"`{value}`"
    flags = ", ".join(action.option_strings)
    return f"`{flags}`" if action.nargs == 0 else f"`{flags} {value}`"


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """Help is plain text: what Markdown would read as markup is shown as it is, except `code`."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
