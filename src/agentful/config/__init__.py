"""Configuration and plan files as checked data; every error names its file and line."""

from __future__ import annotations

from .agents import load_agents, unknown_agent, why_unusable
from .edit import set_setting
from .fields import parse_duration
from .plan import (
    Plan,
    agent_from_dict,
    check_agent,
    check_task,
    find_plan,
    load_plan,
    parse_plan,
    resolve,
    task_from_dict,
    task_from_fields,
    with_agent_defaults,
)
from .settings import (
    CONFIG_FIELDS,
    CONFIG_FILE,
    SETTING_FIELDS,
    Settings,
    check_options,
    describe,
    load_settings,
    options_from_dict,
    user_config,
)

__all__ = [
    "CONFIG_FIELDS",
    "CONFIG_FILE",
    "SETTING_FIELDS",
    "Plan",
    "Settings",
    "agent_from_dict",
    "check_agent",
    "check_options",
    "check_task",
    "describe",
    "find_plan",
    "load_agents",
    "load_plan",
    "load_settings",
    "options_from_dict",
    "parse_duration",
    "parse_plan",
    "resolve",
    "set_setting",
    "task_from_dict",
    "task_from_fields",
    "unknown_agent",
    "user_config",
    "why_unusable",
    "with_agent_defaults",
]
