"""The two lists of messages, in JavaScript and in Python, are one; and the session obeys every command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from demo import protocol
from demo.session import Session

ROOT = Path(__file__).parent.parent
PRINT = "import('./demo/protocol.js').then((m) => console.log(JSON.stringify([m.COMMANDS, m.EVENTS])))"


def test_javascript_and_python_name_the_same_messages() -> None:
    result = subprocess.run(["node", "-e", PRINT], cwd=ROOT, capture_output=True, text=True, check=True)
    commands, events = json.loads(result.stdout)
    assert commands == {name: list(names) for name, names in protocol.COMMANDS.items()}
    assert list(commands) == list(protocol.COMMANDS)
    assert events == {name: list(names) for name, names in protocol.EVENTS.items()}


def test_session_obeys_every_command_and_no_other() -> None:
    assert {name.removeprefix("do_") for name in dir(Session) if name.startswith("do_")} == set(
        protocol.COMMANDS
    )
