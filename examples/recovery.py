"""When something fails: go on with the rest, retry with more context, then ask a person.

python examples/recovery.py
"""

import asyncio

from agentful import AgentfulError, TaskError, TaskGroup, ask, run

TASKS = [
    {"id": "auth-api", "agent": "backend", "task": "Implement auth API"},
    {"id": "auth-ui", "agent": "frontend", "task": "Create auth UI"},
    {"id": "profile-api", "agent": "backend", "task": "Implement profile API"},
]


async def main() -> None:
    try:
        results = await TaskGroup(
            TASKS,
            mode="parallel",
            fail_fast=False,  # go on even if one fails
            timeout=600,
        )
    except AgentfulError as error:
        print(f"Parallel execution error: {error}")
        print("Falling back to sequential mode...")
        for task in TASKS:
            await run(task)
        return

    print(f"✓ {len(results.succeeded)} tasks completed")
    if not results.failed:
        return
    print(f"✗ {len(results.failed)} tasks failed")
    # Retry failed tasks one after another, with more context
    for failure in results.failed:
        print(f"Retrying: {failure.id} ({failure.message})")
        more = f"{failure.task.prompt}\n\nA first attempt failed: {failure.message}\n{failure.detail}"
        try:
            await run(failure.agent, more, id=failure.id)
            print(f"✓ Retry successful: {failure.id}")
        except TaskError as error:
            print(f"✗ Retry failed: {error}")
            # Shown by `agentful decide`, and in .agentful/decisions.json
            answer = await ask(
                f"Task {failure.id} failed twice. How to proceed?",
                options=["Skip and continue", "Manual implementation", "Simplify requirements"],
                blocking=[failure.id],
            )
            print(f"  {failure.id}: {answer}")


if __name__ == "__main__":
    asyncio.run(main())
