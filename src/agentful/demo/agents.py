"""The agents of the demo: scripts, not models. Each does one prepared task, as an agent client would.

Started as ``python -m agentful.demo.agents SPEED`` in a workspace, with the task and the prompt in
the environment. ``SPEED`` divides the time that they pretend to think.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

SOLUTIONS = Path(__file__).parent / "solutions"

COMMANDS = {
    "cmd-sum": (
        "sum",
        '''def sum_(book):
    """Say how much was spent in all."""
    from .money import show

    return show(sum(entry.cents for entry in book))
''',
        "sum_",
    ),
    "cmd-list": (
        "list",
        '''def list_(book):
    """Show every entry, a line each."""
    from .money import show

    return "\\n".join(f"{e.day} {e.who} {show(e.cents)} {e.what}".rstrip() for e in book)
''',
        "list_",
    ),
}


def main() -> int:
    task = os.environ["AGENTFUL_TASK"]
    attempt = int(os.environ["AGENTFUL_ATTEMPT"])
    prompt = Path(os.environ["AGENTFUL_PROMPT_FILE"]).read_text(encoding="utf-8")
    speed = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    think(10, "reading the code", speed)
    if task == "review":
        return review(speed)
    if task == "rounding":
        answer = re.search(r"Answer: Half (up|to even)", prompt)
        if answer is None:
            say("::ask How is half a unit rounded? [Half up|Half to even]")
            return 0
        copy("rounding", {"@ANSWER@": answer[1]})
        summary = f"tally/rounding.py rounds half {answer[1]}"
    elif task in COMMANDS:
        add_command(*COMMANDS[task])
        summary = f"added the command {COMMANDS[task][0]!r} to tally/commands.py"
    elif task == "docs":
        document()
        summary = "the README lists the commands"
    else:
        # What it is told about its first attempt is how it knows better the second time.
        wiser = "What went wrong before" in prompt
        copy(f"{task}/{2 if wiser else 1}" if task == "filters" else task)
        summary = f"wrote tally/{task}.py and its tests" + (" (mended)" if wiser and attempt > 1 else "")
    think(50, "writing", speed)
    think(90, "looking it over", speed)
    say(f"::summary {summary}")
    return 0


def think(percentage: int, what: str, speed: float) -> None:
    say(f"::progress {percentage} {what}")
    time.sleep(0.5 / speed)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def copy(solution: str, words: dict[str, str] | None = None) -> None:
    shutil.copytree(SOLUTIONS / solution, ".", dirs_exist_ok=True)
    for file in (SOLUTIONS / solution).rglob("*.py"):
        target = Path(file.relative_to(SOLUTIONS / solution))
        text = target.read_text(encoding="utf-8")
        for word, by in (words or {}).items():
            text = text.replace(word, by)
        target.write_text(text, encoding="utf-8")


def add_command(name: str, code: str, function: str) -> None:
    file = Path("tally/commands.py")
    text = file.read_text(encoding="utf-8")
    text = text.replace("\n\nCOMMANDS = {", f"\n\n{code}\n\nCOMMANDS = {{")
    text = text.replace("\n}\n", f'\n    "{name}": {function},\n}}\n')
    file.write_text(text, encoding="utf-8")


def document() -> None:
    text = Path("tally/commands.py").read_text(encoding="utf-8")
    names = re.findall(r'^    "(\w+)":', text, re.MULTILINE)
    with Path("README.md").open("a", encoding="utf-8") as readme:
        readme.write("\nCommands: " + ", ".join(f"`{name}`" for name in names) + ".\n")


def review(speed: float) -> int:
    ran = subprocess.run(
        [sys.executable, "-m", "unittest", "-q"], capture_output=True, text=True, check=False
    )
    think(80, "running the suite", speed)
    said = [line for line in ran.stderr.splitlines() if line.startswith("Ran ")]
    say(f"::summary {'looks good' if ran.returncode == 0 else 'the suite fails'}: {' '.join(said)}")
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
