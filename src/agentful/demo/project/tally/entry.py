"""One entry of the book."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """Somebody spent ``cents`` on something, on a day written as ``2026-03-14``."""

    day: str
    who: str
    cents: int
    what: str = ""
