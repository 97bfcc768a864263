"""The book as a table for people."""

from . import money
from .balance import by_person


def table(book):
    """A line for each person, and one for all."""
    lines = [f"{who:<12}{money.show(cents):>12}" for who, cents in by_person(book).items()]
    lines.append(f"{'together':<12}{money.show(sum(e.cents for e in book)):>12}")
    return "\n".join(lines)
