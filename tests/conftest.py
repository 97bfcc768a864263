"""For all tests: nobody's configuration, and workspaces in a temporary folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep workspaces and user settings of tests out of the home folder of whoever runs them."""
    place: Path = tmp_path_factory.mktemp("places", numbered=True)
    monkeypatch.setenv("AGENTFUL_WORKSPACES", str(place / "workspaces"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
