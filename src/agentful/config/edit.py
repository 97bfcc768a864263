"""Changing one setting in ``.agentful/config.toml``, with everything else in the file left as it is."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError
from .agents import AGENT_FIELDS
from .fields import Duration, Folder, check_name
from .settings import CONFIG_FIELDS, CONFIG_FILE, SETTING_FIELDS, layer
from .source import MAX_CONFIG, Source, from_text, is_plain_file, nearest, parse_toml, read_text
from .tomltext import toml_text, with_value

if TYPE_CHECKING:
    from .fields import Field


def set_setting(root: Path, key: str, value: object) -> Any:
    """Write one setting to ``.agentful/config.toml``, atomically; the value as it was understood.

    ``key`` is a setting, also spelt as its flag, or ``agents.NAME.KEY`` or ``agent_defaults.KEY``. A text
    is read as it is in an environment variable: ``4``, ``true``, ``["pytest -q"]``. Raises
    :class:`ConfigError` for an unknown key, a value of the wrong kind, and a file that is broken or
    cannot be written; the file is as it was then.
    """
    table, field = _target(key)
    if isinstance(value, str):
        source = from_text(value, key)
    else:
        source = Source(name=key, data=value, error=ConfigError)
    checked = field.kind.read(source.root)
    # "10m" says more to the next reader than 600.0 does, and "~" is right for every user.
    keep = isinstance(field.kind, (Duration, Folder)) and isinstance(source.data, (str, int))
    said = source.data if keep else checked

    path = root / CONFIG_FILE
    before = ""
    if path.exists():
        if not is_plain_file(path):
            raise ConfigError("it is no plain file", where=CONFIG_FILE)
        before = read_text(
            path, name=CONFIG_FILE, limit=MAX_CONFIG, what="a configuration file", error=ConfigError
        )
        parse_toml(before, CONFIG_FILE, error=ConfigError)
    after = with_value(before, table, (field.name, *field.aliases), _written(said, key))
    _check_nothing_else_changed(before, after, table, field)
    layer(parse_toml(after, CONFIG_FILE, error=ConfigError).root, CONFIG_FIELDS)
    try:
        _replace(Path(os.path.realpath(path)), after)
    except OSError as error:
        raise ConfigError(f"it cannot be written: {error.strerror}", where=CONFIG_FILE) from None
    return checked


def _written(value: object, key: str) -> str:
    try:
        return toml_text(value)
    except ValueError as error:
        raise ConfigError(f"it cannot be written down: {error}", where=key) from None


def _target(key: str) -> tuple[tuple[str, ...], Field]:
    """The table that a key is in, and its field."""
    parts = _parts(key)
    if len(parts) == 1:
        return (), _field(parts[0].replace("-", "_"), SETTING_FIELDS, "setting")
    if parts[0] == "agents" and len(parts) == 3:
        check_name(Source(name=key, data=parts[1], error=ConfigError).root)
        return parts[:2], _field(parts[2], AGENT_FIELDS, "key")
    if parts[0] == "agent_defaults" and len(parts) == 2:
        return parts[:1], _field(parts[1], AGENT_FIELDS, "key")
    raise ConfigError(f"{key!r} is no setting; write a setting's name, agents.NAME.KEY or agent_defaults.KEY")


def _parts(key: str) -> tuple[str, ...]:
    """A dotted key as TOML reads it, so that an agent's name may be in quotes."""
    if set(key) & set("\n#="):
        return (key,)
    try:
        table: dict[str, Any] | None = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return (key,)
    parts: list[str] = []
    while table:
        parts.append(next(iter(table)))
        below = table[parts[-1]]
        table = cast("dict[str, Any]", below) if isinstance(below, dict) else None
    return tuple(parts)


def _field(name: str, fields: tuple[Field, ...], what: str) -> Field:
    known = {spelling: field for field in fields for spelling in (field.name, *field.aliases)}
    if name not in known:
        raise ConfigError(f"unknown {what} {name!r}; {nearest(name, known, what=what)}")
    return known[name]


def _check_nothing_else_changed(before: str, after: str, table: tuple[str, ...], field: Field) -> None:
    """Refuse an edit that did not come out: the file has its table in a form that cannot be added to."""
    try:
        # Numbers as they are written: one that is none (nan) is not equal to itself.
        left = [_without(tomllib.loads(text, parse_float=str), table, field) for text in (before, after)]
    except tomllib.TOMLDecodeError:
        left = [{"": before}, {"": after}]
    if left[0] != left[1]:
        name = ".".join((*table, field.name))
        raise ConfigError(
            f"{name} cannot be set in the form that this file has; edit it by hand", where=CONFIG_FILE
        )


def _without(data: dict[str, Any], table: tuple[str, ...], field: Field) -> dict[str, Any]:
    """The data without the field, and without tables that have nothing else."""
    if table:
        inner = _without(data.get(table[0], {}), table[1:], field)
        rest = {key: value for key, value in data.items() if key != table[0]}
        return {**rest, table[0]: inner} if inner else rest
    return {key: value for key, value in data.items() if key not in (field.name, *field.aliases)}


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        # Line ends are the file's own, which are not to be translated.
        with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123
            file.write(text)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
