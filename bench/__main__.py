"""Run the measurements: ``python -m bench [--quick] [PART ...]``, from the root of the repository.

A part is a module of this folder with two functions: ``run(quick) -> results``, which can be written as
JSON, and ``table(results) -> text``, in Markdown.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from pathlib import Path

from bench.harness import machine, machine_line

PARTS = ("scheduler", "commands", "efficiency")
FOLDER = Path(__file__).parent / "results"


def main() -> None:
    there = [part for part in PARTS if importlib.util.find_spec(f"bench.{part}") is not None]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure agentful.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(there)} (all)")
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    parser.add_argument("--output", type=Path, help="where the results go (bench/results; nowhere if quick)")
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in there]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(there)}")
    folder: Path | None = given.output or (None if given.quick else FOLDER)
    for part in given.parts or there:
        module = importlib.import_module(f"bench.{part}")
        info = machine()
        results = module.run(given.quick)
        text = f"# {part}\n\n{machine_line(info)}\n\n{module.table(results)}\n"
        print(text, flush=True)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            body = json.dumps({"version": 1, "machine": info, "results": results}, indent=1)
            (folder / f"{part}.json").write_text(body + "\n", encoding="utf-8")
            (folder / f"{part}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
