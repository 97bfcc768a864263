"""``python -m agentful``, and the ``agentful`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and exit with its code."""
    if sys.platform == "win32":
        sys.exit("agentful runs on Linux and macOS; on Windows, run it in WSL")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # What a terminal cannot show, such as a file name that is no text, must not end a run.
            utf = (getattr(stream, "encoding", "") or "").lower().startswith("utf")
            reconfigure(errors="backslashreplace" if utf else "replace")
    from .cli import cli

    cli()


if __name__ == "__main__":
    main()
