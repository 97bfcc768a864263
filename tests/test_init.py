"""The public names: that they are there, documented, and that importing them costs nothing."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import agentful
from agentful import errors

THEIR_HOMES = ("agentful.errors", "agentful.model", "agentful.group")


def modules_after(code: str) -> set[str]:
    """What is loaded in a fresh interpreter once it has run this."""
    lines = ["import sys", "before = set(sys.modules)", code, "import json"]
    lines += ["print(json.dumps(sorted(set(sys.modules) - before)))"]
    program = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(json.loads(done.stdout))


def test_importing_it_loads_nothing_but_itself() -> None:
    loaded = modules_after("import agentful; agentful.__version__; dir(agentful); agentful.__all__")
    assert {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names} == {
        "agentful",
        "agentful.version",
    }
    assert not loaded & {"asyncio", "sqlite3", "subprocess", "pathlib", "logging", "dataclasses"}


def test_a_name_loads_what_it_needs_and_no_more() -> None:
    loaded = modules_after("from agentful import Task, TaskFailed; Task('backend', 'x')")
    assert {name for name in loaded if name.startswith("agentful")} == {
        "agentful",
        "agentful.version",
        "agentful.errors",
        "agentful.model",
    }
    loaded = modules_after("from agentful import TaskGroup, run")
    for heavy in (
        "rich",
        "click",
        "yaml",
        "agentful.cli",
        "agentful.progress",
        "agentful.testing",
        "agentful.demo",
    ):
        assert heavy not in loaded, heavy


def test_a_name_is_looked_up_once() -> None:
    assert modules_after("import agentful; agentful.State; assert 'State' in vars(agentful)")


def test_every_public_name_is_there() -> None:
    assert len(agentful.__all__) == len(set(agentful.__all__))
    for name in agentful.__all__:
        assert getattr(agentful, name) is not None
    assert dir(agentful) == sorted(agentful.__all__)
    starred: dict[str, object] = {}
    exec("from agentful import *", starred)
    assert set(agentful.__all__) <= starred.keys()


def test_every_error_is_public() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }
    assert defined <= set(agentful.__all__)


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'agentful' has no attribute 'Tusk'"):
        _ = agentful.Tusk
    assert not hasattr(agentful, "__wrapped__")


@pytest.mark.parametrize("name", [name for name in agentful.__all__ if name != "__version__"])
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(agentful, name)
    assert value.__module__.startswith(THEIR_HOMES)
    # Not one that was inherited, nor the signature that dataclass-like bases make up.
    doc = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert doc
    assert not doc.startswith(f"{name}(")
    if not inspect.isclass(value):
        return
    inherited = {member for base in value.__mro__[1:] for member in vars(base)}
    for member, function in vars(value).items():
        if not member.startswith("_") and member not in inherited and inspect.isfunction(function):
            assert function.__doc__, f"{name}.{member}"


def test_the_version_is_one() -> None:
    assert agentful.__version__.split(".")[0].isdecimal()
