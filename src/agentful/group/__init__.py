"""The Python API: run one task, a group of them, or a pool that takes them as they come.

    result = await run("backend", "Implement the auth API")

    results = await TaskGroup([Task("backend", "..."), Task("frontend", "...")], max_concurrency=4)

    async with TaskGroup() as group:
        api = group.submit("backend", "Implement the auth API", writes=["src/api/**"])
        group.submit("tester", "Write tests for it", needs=[api])

Concurrency is structured: nothing that was started in a group outlives it. What one process runs in one
repository lands on one integration branch, so that what comes later starts from what came before.
"""

from __future__ import annotations

from .api import AgentPool, TaskGroup, ask, ask_sync, run, run_sync
from .handle import Progress, Results, TaskHandle

__all__ = [
    "AgentPool",
    "Progress",
    "Results",
    "TaskGroup",
    "TaskHandle",
    "ask",
    "ask_sync",
    "run",
    "run_sync",
]
