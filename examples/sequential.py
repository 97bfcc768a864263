"""One after another: each step starts from what the step before it landed.

Run it in a repository whose agents `backend`, `frontend`, `tester` and `reviewer` are defined:

    python examples/sequential.py login
"""

import asyncio
import sys

from agentful import run


async def build(feature: str) -> None:
    print(f"Building feature: {feature}")

    print("Step 1/4: Backend implementation...")
    await run("backend", f"Implement {feature} API per spec")

    print("Step 2/4: Frontend implementation...")
    await run("frontend", f"Create {feature} UI per spec")

    print("Step 3/4: Writing tests...")
    await run("tester", f"Write tests for {feature}")

    print("Step 4/4: Validating quality...")
    await run("reviewer", f"Review {feature} changes", reads_only=True)

    print(f"✓ Feature {feature} complete")


if __name__ == "__main__":
    asyncio.run(build(sys.argv[1] if len(sys.argv) > 1 else "login"))
