"""How many slots there are on this machine."""

from __future__ import annotations

import os

import psutil

_PER_AGENT = 1 << 30
"""Bytes of memory that one agent client is taken to use."""
_MOST = 16


def slots() -> int:
    """A number of attempts that this machine can carry at once.

    Agents wait for their models more than they compute: two a processor, as far as memory goes.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        processors = os.cpu_count() or 1
    by_memory = psutil.virtual_memory().available // _PER_AGENT
    return int(max(1, min(_MOST, 2 * processors, by_memory)))
