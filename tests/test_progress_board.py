from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.cells import cell_len
from rich.console import Console

from agentful.model import Task
from agentful.progress import Board, Scene, frame, plain
from progressutil import START, Story, busy_story


@dataclass
class Said:
    percentage: float | None
    message: str


def scene(story: Story, **fields: object) -> Scene:
    given = {"run": "r-7f3a", "title": "Ship billing", "started_at": START, "expected": 780.0} | fields
    return Scene(explain=story.scheduler.explain, **given)  # type: ignore[arg-type]


def drawn(story: Story, width: int = 100, height: int = 40, at: float = 200, **fields: object) -> list[str]:
    return [plain(line) for line in frame(story.view, scene(story, **fields), START + at, width, height)]


def test_the_whole_board() -> None:
    story = busy_story()
    story.finish("ui", 190)
    said = {"api": Said(40, "edit \x1b[1msrc/api/auth.py")}
    assert drawn(story, activity=said, notice="Ctrl-C leaves") == [
        "agentful r-7f3a  Ship billing" + " " * 53 + "3m20s of about 13m",
        "█████████░░░░░░░░░░░░░░░░  3/8  ? 1 needs you  ✗ 1 failed  ● 1 running  ◆ 1 landing  ✓ 1 done",
        "                             ○ 1 ready  · 1 waiting  – 1 skipped",
        "NEEDS YOU",
        " ? d1  Sessions or JWT?  blocks auth",
        "      [1] Sessions  [2] JWT   agentful decide d1 NUMBER",
        " ✗ failed cli  agent failed: exit code 2 (2 attempts)" + " " * 30 + "agentful logs cli",
        "WORKING",
        " ● running  api  backend   3m20s/~5m  40 % edit src/api/auth.py",
        " ◆ landing  ui   frontend        10s  merging and checking",
        "READY",
        " ○ ready fast  api writes src/api/**, which overlaps src/api/x.py",
        " · waiting 1: tests ← api, ui",
        " ✓ done 1: docs",
        " – skipped 1: e2e",
        "Ctrl-C leaves",
    ]


@pytest.mark.parametrize("width", [10, 20, 40, 60, 79, 80, 120, 300])
@pytest.mark.parametrize("height", [4, 8, 14, 20, 40])
def test_it_fits_every_terminal(width: int, height: int) -> None:
    story = busy_story()
    said = {"api": Said(None, "日本語" * 100)}
    lines = drawn(story, width, height, activity=said, notice="x" * 400, title="t" * 400)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= max(width, 20)


def test_what_needs_a_person_is_never_crowded_out() -> None:
    tasks = [Task("a", f"task {number}", id=f"t{number}") for number in range(200)]
    story = Story(*tasks, max_concurrency=50)
    story.fail("t3", 1, "no luck")
    lines = drawn(story, 80, 20)
    assert any("t3" in line and "failed" in line for line in lines)
    assert any(line.startswith("WORKING") and "of 50 shown" in line for line in lines)
    assert any(line.startswith("READY") and "of 149 shown" in line for line in lines)


def test_narrow_terminals_drop_columns() -> None:
    wide, narrow = (drawn(busy_story(), width, 30) for width in (100, 60))
    assert any("backend" in line for line in wide)
    assert not any("backend" in line for line in narrow)
    assert any("agentful logs cli" in line for line in wide)
    assert not any("agentful logs cli" in line for line in narrow)


def test_a_failure_that_needs_a_person_shows_what_went_wrong() -> None:
    story = Story(Task("a", "x", id="one"), on_failure="decide")
    story.fail("one", 5, "the disk is on fire")
    text = "\n".join(drawn(story, 160))
    assert "the disk is on fire" in text
    assert "[4] Simplify requirements" in text


def test_a_question_without_options_takes_any_answer() -> None:
    from agentful.events import AttemptAsked

    story = Story(Task("a", "x", id="one"))
    story.tell(AttemptAsked(START + 1, "one", 1, "Which port?"))
    assert "      agentful decide d1 ANSWER" in drawn(story)


def test_no_invented_numbers() -> None:
    story = Story(Task("a", "x", id="one"))
    lines = drawn(story, expected=None, activity={"one": Said(None, "")})
    assert not any("%" in line or "~" in line or "about" in line for line in lines)


def test_an_empty_run() -> None:
    assert drawn(Story(), 80, 10)[1].endswith("0/0")


def test_a_board_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24, color_system=None)
    story = busy_story()
    with Board(story.view, scene(story), console, clock=lambda: START + 200) as board:
        board.say("a line that stays \x1b[2J")
        board.draw()
    written = out.getvalue()
    assert "NEEDS YOU" in written
    assert "a line that stays" in written
    assert "\x1b[2J" not in written


def test_a_board_survives_its_terminal() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    console = Console(file=Gone(), force_terminal=True, width=80, height=24)
    story = busy_story()
    with Board(story.view, scene(story), console) as board:
        board.draw()
        board.say("nobody reads this")
