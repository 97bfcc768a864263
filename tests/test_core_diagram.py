"""The drawing of the states shows the table, and the page in docs/ is the drawing of today."""

from __future__ import annotations

import re
from pathlib import Path

from agentful.core.diagram import states_markdown, states_mermaid
from agentful.core.scheduler import TRANSITIONS
from agentful.events import Trigger
from agentful.model import State

PAGE = Path(__file__).parent.parent / "docs" / "states.md"


def test_the_page_is_drawn_from_the_table_of_today() -> None:
    assert PAGE.read_text(encoding="utf-8") == states_markdown(), "docs/states.md is stale: draw it anew"


def test_the_drawing_has_every_arrow_of_the_table_and_no_other() -> None:
    drawn: set[tuple[str, str, str]] = set()
    ends: set[str] = set()
    for line in states_mermaid().splitlines()[1:]:
        found = re.fullmatch(r"    (\S+) --> ([^:]+)(?:: (.*))?", line)
        assert found is not None, line
        source, target, labels = found.groups()
        if labels is None:
            assert target == "[*]"
            ends.add(source)
        else:
            drawn |= {(source, target, label.replace(" ", "_")) for label in labels.split(", ")}
    rows = {(s, t, trigger) for s, row in TRANSITIONS.items() for trigger, t in row.items()}
    assert drawn == rows | {("[*]", "waiting", "submitted")}
    assert ends == {state for state in State if state.settled}


def test_another_table_is_another_drawing() -> None:
    table = {State.WAITING: {Trigger.LANDED: State.SUCCEEDED, Trigger.DONE: State.SUCCEEDED}}
    assert states_mermaid(table) == (
        "stateDiagram-v2\n    [*] --> waiting: submitted\n    waiting --> succeeded: landed, done\n"
    )


def test_the_page_names_every_state_and_every_arrow() -> None:
    page = states_markdown()
    for state in State:
        assert f"| `{state}` | " in page
    for trigger in Trigger:
        assert f"| {str(trigger).replace('_', ' ')} | " in page
