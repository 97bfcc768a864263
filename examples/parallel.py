"""In parallel where nothing depends on anything, then in order: the same feature, sooner.

python examples/parallel.py login
"""

import asyncio
import sys
import time

from agentful import Task, TaskGroup, run


async def build(feature: str) -> None:
    started = time.monotonic()
    print(f"Building feature: {feature} (parallel mode)")

    # Phase 1: implementation, in parallel
    print("Phase 1: Parallel implementation...")
    backend, frontend = await TaskGroup(
        [
            Task("backend", f"Implement {feature} API"),
            Task("frontend", f"Create {feature} UI"),
        ],
        mode="parallel",
    )

    # Phase 2: testing, after the implementation
    print("Phase 2: Testing...")
    tests = await run("tester", f"Write tests for {feature}")

    # Phase 3: review, after testing
    print("Phase 3: Validation...")
    review = await run("reviewer", f"Review {feature}", reads_only=True)

    one_by_one = sum(result.duration for result in (backend, frontend, tests, review))
    saved = 1 - (time.monotonic() - started) / one_by_one
    print(f"✓ Feature {feature} complete ({saved:.0%} faster than one by one)")


if __name__ == "__main__":
    asyncio.run(build(sys.argv[1] if len(sys.argv) > 1 else "login"))
