"""Amounts rounded for people: HALF."""

HALF = "@ANSWER@"


def to_unit(cents):
    """Whole units of money, a half rounded as HALF says."""
    whole, rest = divmod(cents, 100)
    up = rest > 50 or (rest == 50 and (HALF == "up" or whole % 2 == 1))
    return whole + up
