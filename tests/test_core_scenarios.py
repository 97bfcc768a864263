"""Stories of runs, told in text: what happens, and below it what the scheduler makes of it.

A file in ``scenarios/`` is a list of blocks: commands, one a line; a line of four dashes; what they must
print; an empty line. A ``#`` begins a remark. To accept what is printed now, set ``AGENTFUL_REWRITE=1``,
and read the difference before you commit it.

    options NAME=VALUE...        how the run is carried out; begins a new run
    submit ID [NAME=VALUE...]    a task; several in one event with `|` between them
    finish ID, fail ID REASON, ask ID, stopped ID, lost ID
                                 how its attempt ended; `#2` after the ID for an attempt of another number
    prepared ID, landed ID, rejected ID REASON, moved ID, landing-lost ID, landing-held ID MESSAGE
                                 how its landing went on; `land ID` is prepared and landed
    cancel ID...|all, retry ID..., decide DECISION ANSWER, question TEXT [blocking=ID,...]
    pause, unpause, interrupt, slots N
    wait [TIME]                  let time go by, with ticks; until the next one where no time is given
    crash [NAME=VALUE...]        everything but the journal is lost; taken up again, with these options
    states, explain ID..., decisions, result ID, wakeup
                                 print what is known
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentful.events import (
    AdvanceBranch,
    AttemptSucceeded,
    CancelRequested,
    Command,
    DecisionClosed,
    DecisionOpened,
    Interrupted,
    Paused,
    PrepareLanding,
    RecoverAttempt,
    SlotsChanged,
    StartAttempt,
    StopAttempt,
    StopLanding,
    TaskAdded,
    TaskChanged,
    Transition,
    Unpaused,
)
from agentful.model import Options, Reason, Task, Usage, format_duration
from coreutil import START, Play

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
TIMES = {"timeout", "task_timeout", "estimate", "retry_delay"}
LISTS = {"needs", "writes", "resources", "blocking", "paths", "options", "out_of_scope"}
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    return float(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else float(text)


def since_start(at: float) -> str:
    return f"+{format_duration(at - START)}"


def named(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The words that stand alone, and those that are ``name=value``."""
    alone: list[str] = []
    values: dict[str, Any] = {}
    for word in words:
        name, is_named, value = word.partition("=")
        if not is_named or not name.isidentifier():
            alone.append(word)
        elif name in TIMES:
            values[name] = seconds(value)
        elif name in LISTS:
            values[name] = tuple(part for part in value.split(",") if part)
        else:
            values[name] = value
    return alone, values


class Story:
    """One file's run."""

    def __init__(self) -> None:
        self.play = Play()
        self.seen = 0
        """How many transitions are printed."""

    def tell(self, line: str) -> list[str]:
        """Carry one line out; what it prints."""
        words = shlex.split(line)
        said: list[str] = []
        commands: list[Command] = []
        for step in self.do(words[0], words[1:], said):
            commands += step.commands
        said += [self.changed(t) for t in self.play.log[self.seen :]]
        self.seen = len(self.play.log)
        said += ["    do: " + self.told(command) for command in commands]
        return said or ["nothing changes"]

    def do(self, verb: str, words: list[str], said: list[str]) -> list[Any]:
        play = self.play
        alone, values = named(words)
        match verb:
            case "options":
                self.play = Play(msgspec.convert(values, Options, strict=False))
                self.seen = 0
                said.append("a new run")
                return []
            case "submit":
                return [play.submit(*self.tasks(words))]
            case "wait":
                return play.wait(seconds(alone[0]) if alone else None)
            case "crash":
                options = msgspec.structs.asdict(play.options) | values
                return [play.crash(msgspec.convert(options, Options, strict=False))]
            case "cancel":
                return [play.send(CancelRequested(play.now, None if alone == ["all"] else tuple(alone)))]
            case "retry":
                return [play.retry(*alone)]
            case "decide":
                return [play.answer(alone[0], " ".join(alone[1:]))]
            case "question":
                return [play.open(" ".join(alone), **values)]
            case "pause" | "unpause" | "interrupt":
                kind = {"pause": Paused, "unpause": Unpaused, "interrupt": Interrupted}[verb]
                return [play.send(kind(play.now))]
            case "slots":
                return [play.send(SlotsChanged(play.now, int(alone[0])))]
            case "states" | "explain" | "decisions" | "result" | "wakeup":
                said += self.known(verb, alone)
                return []
            case _:
                return self.act_ends(verb, alone, values)

    def tasks(self, words: list[str]) -> list[Task]:
        tasks: list[Task] = []
        rest = [*words, "|"]
        while rest:
            end = rest.index("|")
            (task_id,), values = named(rest[:end])
            tasks.append(msgspec.convert({"id": task_id, **values}, Task, strict=False))
            rest = rest[end + 1 :]
        return tasks

    def act_ends(self, verb: str, alone: list[str], values: dict[str, Any]) -> list[Any]:
        play, task_id, further = self.play, alone[0], alone[1:]
        if "cost" in values:
            values["usage"] = Usage(cost=float(values.pop("cost")))
        match verb:
            case "finish" if further:
                attempt = int(further[0].removeprefix("#"))
                return [play.send(AttemptSucceeded(play.now, task_id, attempt, "late", ("late",)))]
            case "finish":
                if values.get("paths") == ():
                    values["commit"] = None
                return [play.finish(task_id, **values)]
            case "fail":
                return [play.fail(task_id, Reason(further[0]), " ".join(further[1:]) or "no", **values)]
            case "ask":
                return [play.ask(task_id, " ".join(further), **values)]
            case "stopped":
                return [play.stopped(task_id, **values)]
            case "lost":
                return [play.lost(task_id, " ".join(further) or "gone", **values)]
            case "prepared":
                return [play.prepared(task_id, commit=f"merge-{task_id}")]
            case "landed":
                return [play.landed_(task_id)]
            case "land":
                return [play.prepared(task_id, commit=f"merge-{task_id}"), play.landed_(task_id)]
            case "rejected":
                return [play.rejected(task_id, Reason(further[0]), " ".join(further[1:]) or "no", **values)]
            case "moved":
                return [play.moved(task_id)]
            case "landing-lost":
                return [play.landing_lost(task_id, " ".join(further) or "gone")]
            case "landing-held":
                return [play.landing_lost(task_id, " ".join(further), held=True)]
        raise AssertionError(f"there is no command {verb!r}")

    def known(self, verb: str, alone: list[str]) -> list[str]:
        play = self.play
        match verb:
            case "states":
                words = [f"{record.id} {record.state}" for record in play.records]
                state = play.view.state(live=True)
                return [", ".join(words), f"the run: {state}{', idle' if play.idle() else ''}"]
            case "explain":
                lines = []
                for task_id in alone:
                    why = "; ".join(f"{o.text} ({o.kind})" for o in play.scheduler.explain(task_id))
                    lines.append(f"{task_id}: {why or 'nothing keeps it'}")
                return lines
            case "decisions":
                found = play.scheduler.decisions.values()
                return [f"{d.id} {'open' if d.open else repr(d.answer)}: {d.question}" for d in found]
            case "result":
                result = play.record(alone[0]).result()
                given = msgspec.to_builtins(result)
                del given["task"]
                times = {"started_at", "finished_at"} & given.keys()
                given.update({name: since_start(given[name]) for name in times if given[name]})
                return [
                    f"{name}: {value}" for name, value in given.items() if value not in ("", None, [], {})
                ]
            case _:
                wakeup = play.wakeup()
                return ["no tick is wanted" if wakeup is None else f"a tick at {since_start(wakeup)}"]

    def changed(self, transition: Transition) -> str:
        at = since_start(transition.at)
        match transition:
            case TaskAdded(task=task):
                return f"{at} {task.id}: added"
            case TaskChanged(detail=detail):
                notes = [str(transition.trigger)]
                if transition.attempt:
                    notes.append(f"attempt {transition.attempt}")
                if transition.reason is not None:
                    notes.append(str(transition.reason))
                if detail is not None and detail.message:
                    notes.append(repr(detail.message))
                if detail is not None and detail.not_before is not None:
                    notes.append(f"not before {since_start(detail.not_before)}")
                if detail is not None and detail.alone:
                    notes.append("alone")
                arrow = f"{transition.source} -> {transition.target}"
                return f"{at} {transition.task_id}: {arrow} ({', '.join(notes)})"
            case DecisionOpened(decision=decision):
                text = f"{at} {decision.id}: asks {decision.question!r}"
                if decision.options:
                    text += f" {list(decision.options)}"
                return text + (f" of {', '.join(decision.blocking)}" if decision.blocking else "")
            case DecisionClosed():
                return f"{at} {transition.decision_id}: answered {transition.answer!r}"

    def told(self, command: Command) -> str:
        match command:
            case StartAttempt():
                text = f"start {command.task_id} #{command.attempt}"
                if command.deadline is not None:
                    text += f", until {since_start(command.deadline)}"
                if command.needs:
                    text += f", after {', '.join(need for need, _, _ in command.needs)}"
                if command.failures:
                    text += f", told of {', '.join(f'{f.reason} #{f.attempt}' for f in command.failures)}"
                if command.answers:
                    text += f", told {', '.join(repr(a.answer) for a in command.answers)}"
                return text
            case StopAttempt():
                return f"stop {command.task_id} #{command.attempt}"
            case RecoverAttempt():
                return f"recover {command.task_id} #{command.attempt}"
            case PrepareLanding():
                return f"prepare {command.task_id} #{command.attempt}: {command.commit or 'the tip as it is'}"
            case AdvanceBranch():
                return f"advance {command.task_id}: {command.onto} -> {command.commit}"
            case StopLanding():
                return f"stop landing {command.task_id}"
        raise AssertionError(command)


def run(text: str) -> str:
    """The file as it should be: its commands, with what they print."""
    story = Story()
    lines: list[str] = []
    printed: list[str] = []
    expected = False
    for line in text.splitlines():
        if expected and line:
            continue
        expected = line == "----"
        if expected:
            lines += [line, *printed]
            printed = []
        else:
            lines.append(line)
            if line and not line.startswith("#"):
                printed += story.tell(line)
    assert not printed, f"the last commands have no {'-' * 4} after them"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    told = run(text)
    if os.environ.get("AGENTFUL_REWRITE"):
        path.write_text(told, encoding="utf-8")
    else:
        assert told == text


def test_there_are_scenarios() -> None:
    assert "seed_timeline" in {path.stem for path in FILES}
