"""How git is started: with which settings, in which environment. What to say to it is in ``git.py``."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, GitError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

OLDEST = (2, 38)
"""The first version of git with all that we use: ``merge-tree --write-tree``, ``cat-file -z``."""
NOBODY = ("agentful", "agentful@localhost")
"""Name and address of a user who has configured none."""

_OUR_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    # What is committed outlives a power loss, refs included. Git's own default syncs neither.
    "core.fsync=committed",
    "core.fsyncMethod=batch",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.safecrlf=false",
    "core.quotePath=false",
    "core.filesRefLockTimeout=1000",
    # Larger files are streamed and not diffed: a snapshot of a huge file costs no memory.
    "core.bigFileThreshold=16m",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.ext.allow=never",
    "transfer.fsckObjects=true",
    "safe.bareRepository=explicit",
    "commit.gpgSign=false",
    "i18n.commitEncoding=UTF-8",
    "i18n.logOutputEncoding=UTF-8",
    "log.showSignature=false",
    "merge.conflictStyle=zdiff3",
    "submodule.recurse=false",
)
_OUR_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    # Said, so that git need not guess them for a reflog, which can mean asking the network.
    "GIT_AUTHOR_NAME": NOBODY[0],
    "GIT_AUTHOR_EMAIL": NOBODY[1],
    "GIT_COMMITTER_NAME": NOBODY[0],
    "GIT_COMMITTER_EMAIL": NOBODY[1],
    "LC_ALL": "C",
}

# Variables that tie git to one repository, as a hook that starts us has them set.
_REPOSITORY_VARIABLES = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)


@dataclass(frozen=True, slots=True)
class Output:
    """What a git command left behind."""

    returncode: int
    stdout: bytes
    stderr: str

    @property
    def line(self) -> str:
        """Standard output as text, without the line break at its end."""
        return text(self.stdout).rstrip("\n")


@contextmanager
def directory_lock(path: Path) -> Generator[int]:
    """Keep out every other thread and process that asks for the same folder's lock.

    The lock is the kernel's, on the folder itself: it needs no file, and dies with its holder. Gives the
    file descriptor that has it; a process that is handed this one keeps the lock for as long as it lives.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def text(data: bytes) -> str:
    """Bytes from git as text for people and for JSON; what is not UTF-8 is shown as ``\\xff``."""
    return data.decode(errors="backslashreplace")


def call_ours(
    git_dir: Path,
    args: Sequence[str],
    *,
    input: bytes | None = None,  # noqa: A002
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    holding: int | None = None,
) -> Output:
    """A git call of ours: see :meth:`.git.Repository.git`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= _OUR_ENVIRONMENT | {"GIT_DIR": os.fspath(git_dir)} | dict(env or {})
    return _call(args, _OUR_SETTINGS, environment, cwd or git_dir, input, check=check, holding=holding)


def call_users(
    cwd: Path,
    args: Sequence[str],
    *,
    input: bytes | None = None,  # noqa: A002
    check: bool = True,
) -> Output:
    """A git call in the user's name: see :meth:`.git.Repository.user_git`."""
    environment = {key: value for key, value in os.environ.items() if key not in _REPOSITORY_VARIABLES}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return _call(args, (), environment, cwd, input, check=check)


def _call(
    args: Sequence[str],
    settings: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    input_: bytes | None,
    *,
    check: bool,
    holding: int | None = None,
) -> Output:
    try:
        done = subprocess.run(
            ("git", *(word for setting in settings for word in ("-c", setting)), *args),
            env=environment,
            cwd=cwd,
            input=input_,
            stdin=subprocess.DEVNULL if input_ is None else None,
            capture_output=True,
            # An interrupt at the terminal is for us to act on, and a prompt finds no terminal to ask at.
            start_new_session=True,
            pass_fds=() if holding is None else (holding,),
            check=False,
        )
    except OSError as error:
        raise GitError(args, 127, str(error)) from error
    stderr = done.stderr.decode(errors="replace")
    if check and done.returncode != 0:
        raise GitError(args, done.returncode, stderr)
    return Output(done.returncode, done.stdout, stderr)


def check_version() -> None:
    """Raise :class:`ConfigError` where git is missing or too old."""
    oldest = ".".join(map(str, OLDEST))
    try:
        said = call_users(Path("/"), ("--version",)).line
    except GitError as error:
        raise ConfigError(f"git cannot be started; install git {oldest} or newer ({error.stderr})") from error
    match = re.search(r"(\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        raise ConfigError(f"git {oldest} or newer is needed, and here is {said!r}; please update git")
