from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from agentful.errors import ConfigError
from agentful.runtime.gitcall import check_version, directory_lock, text
from gitutil import no_user_configuration, script

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_user_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_user_configuration(monkeypatch, tmp_path / "home")


@pytest.mark.parametrize("said", ["git version 2.37.9", "git version 1.9", "who knows"])
def test_an_old_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    script(tmp_path / "bin" / "git", f"echo {said}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    with pytest.raises(ConfigError, match=r"2.38 or newer is needed.*update"):
        check_version()


@pytest.mark.parametrize("said", ["2.38.0", "2.39.3 (Apple Git-146)", "2.45.1.windows.1", "3.0"])
def test_a_newer_git_of_any_vendor_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    script(tmp_path / "bin" / "git", f"echo 'git version {said}'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    check_version()


def test_a_missing_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match=r"git cannot be started; install git 2.38"):
        check_version()


def test_a_directory_lock_keeps_others_out(tmp_path: Path) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with directory_lock(tmp_path):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_a_process_that_is_handed_the_lock_keeps_it(tmp_path: Path) -> None:
    free = threading.Event()

    def wait_for_it() -> None:
        with directory_lock(tmp_path):
            free.set()

    with directory_lock(tmp_path) as lock:
        held = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    assert held.poll() is None
    assert not free.is_set()

    held.communicate()
    waiting.join()
    assert free.is_set()


def test_a_directory_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), directory_lock(tmp_path):
        raise KeyError

    with directory_lock(tmp_path):
        pass


def test_text_shows_what_is_not_utf8() -> None:
    assert text("ünï".encode()) == "ünï"
    assert text(b"caf\xe9") == "caf\\xe9"
