from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from agentful.runtime.private import private_directory, write_private

if TYPE_CHECKING:
    from pathlib import Path


def test_directories_are_for_one_user_and_old_ones_keep_their_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_directory(tmp_path / "a" / "b")
    private_directory(tmp_path / "a" / "b")

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_in_the_way_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")

    with pytest.raises(FileExistsError):
        private_directory(tmp_path / "a")
    with pytest.raises(OSError, match="a"):
        private_directory(tmp_path / "a" / "b")


def test_a_file_is_for_one_user_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"first")

    with pytest.raises(FileExistsError):
        write_private(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        write_private(tmp_path / "link", b"")
    assert not (tmp_path / "elsewhere").exists()
