"""How a run is shown: a board on a terminal, plain lines elsewhere, JSON for scripts, a summary at last."""

from __future__ import annotations

from .board import Activity, Board, Scene, frame
from .lines import JsonPrinter, PlainPrinter, iso, plain_line, status_document
from .summary import Account, account, summary
from .text import Line, agent_of, as_word, clip, one_line, plain, printable

__all__ = [
    "Account",
    "Activity",
    "Board",
    "JsonPrinter",
    "Line",
    "PlainPrinter",
    "Scene",
    "account",
    "agent_of",
    "as_word",
    "clip",
    "frame",
    "iso",
    "one_line",
    "plain",
    "plain_line",
    "printable",
    "status_document",
    "summary",
]
