"""How many slots a machine has."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from agentful.runtime import capacity


@pytest.mark.parametrize(
    ("processors", "gigabytes", "slots"),
    [(1, 64, 2), (4, 64, 8), (4, 3, 3), (4, 0, 1), (128, 512, 16)],
)
def test_slots(monkeypatch: pytest.MonkeyPatch, processors: int, gigabytes: int, slots: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(processors)), raising=False)
    available = SimpleNamespace(available=gigabytes << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    assert capacity.slots() == slots
    assert isinstance(capacity.slots(), int)


def test_slots_of_this_machine() -> None:
    assert 1 <= capacity.slots() <= 16
