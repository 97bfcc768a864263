"""A mix: many features in parallel, their tests in parallel, one review at the end.

python examples/hybrid.py authentication user-profile notifications
"""

import asyncio
import sys

from agentful import TaskGroup, run


async def build(features: list[str]) -> None:
    # Phase 1: implement all features in parallel
    print("Phase 1: Parallel feature implementation...")
    implemented = await TaskGroup(
        [
            wish
            for name in features
            for wish in (
                {"agent": "backend", "task": f"Implement {name} API"},
                {"agent": "frontend", "task": f"Create {name} UI"},
            )
        ],
        {"mode": "parallel", "maxConcurrency": 4},
    )
    print(f"  {len(implemented.succeeded)} of {len(implemented)} done")

    # Phase 2: test all features in parallel
    print("Phase 2: Parallel testing...")
    tested = await TaskGroup(
        [{"agent": "tester", "task": f"Write tests for {name}"} for name in features],
        {"mode": "parallel", "maxConcurrency": 3},
    )
    print(f"  {len(tested.succeeded)} of {len(tested)} done")

    # Phase 3: a single review of all changes
    print("Phase 3: Full codebase review...")
    await run("reviewer", "Review all changes", reads_only=True)
    print("✓ All features complete")


async def build_as_one_graph(features: list[str]) -> None:
    """The same as one graph: no phase waits for the slowest of the phase before."""
    async with TaskGroup(max_concurrency=4) as group:
        tests = []
        for name in features:
            api = group.submit("backend", f"Implement {name} API")
            ui = group.submit("frontend", f"Create {name} UI")
            tests.append(group.submit("tester", f"Write tests for {name}", needs=[api, ui]))
        group.submit("reviewer", "Review all changes", needs=tests, reads_only=True)
        async for progress in group.progress():
            print(f"  {progress.done}/{progress.total} {progress.task.id} {progress.state}")
    print("✓ All features complete, as one graph")


if __name__ == "__main__":
    names = sys.argv[1:] or ["authentication", "user-profile", "notifications"]
    asyncio.run(build(names))
    asyncio.run(build_as_one_graph(names))
