"""Graphs to measure with, the same ones every time."""

from __future__ import annotations

import math
import random


def layered(count: int, *, most_needs: int = 4, seed: int = 1) -> list[tuple[int, ...]]:
    """What each of ``count`` tasks needs: one to ``most_needs`` tasks of the layer before its own.

    As wide as deep, about. Tasks are numbers, and need smaller ones only.
    """
    rng = random.Random(seed)
    width = max(10, math.isqrt(count))
    needs: list[tuple[int, ...]] = []
    for number in range(count):
        before = (number // width - 1) * width
        if before < 0:
            needs.append(())
            continue
        drawn = {before + rng.randrange(width) for _ in range(rng.randint(1, most_needs))}
        needs.append(tuple(sorted(drawn)))
    return needs
