"""For tests, yours and ours: agents that follow a script, and time that does not have to be waited for.

    def test_the_second_attempt_is_told_what_went_wrong():
        driver = ScriptedDriver({"api": [Script().takes(300).fail("no database"), Script().done("it works")]})
        with use_driver(driver):
            task = Task("backend", "Implement the API", id="api", retries=1)
            result = run_virtual(run(task, repository=None))
        assert result.ok
        assert "no database" in driver.attempts[1].prompt

`run_virtual` runs a coroutine on a `VirtualLoop`: timers come due at once, in their order, and a test in
which nothing can happen any more fails instead of hanging. With a seed, what is ready at one instant runs
in an order drawn from it, so that a hundred seeds try a hundred interleavings, each of them repeatable.

`ScriptedDriver` plays agents by `Script`. `simulate` runs whole plans in memory, with the real scheduler
and the real engine, and says when each task starts and ends: a prediction, or the test of a plan.
"""

from __future__ import annotations

from ..runtime.journal import MemoryJournal
from .scripts import Script, ScriptedDriver, use_driver
from .simulation import Simulated, Simulation, simulate
from .virtual import EPOCH, Deadlock, VirtualLoop, clock, run_virtual

__all__ = [
    "EPOCH",
    "Deadlock",
    "MemoryJournal",
    "Script",
    "ScriptedDriver",
    "Simulated",
    "Simulation",
    "VirtualLoop",
    "clock",
    "run_virtual",
    "simulate",
    "use_driver",
]
