"""Parts of the book."""


def in_month(book, month):
    """The entries of a month written as ``2026-03``."""
    return [entry for entry in book if entry.day.startswith(f"{month}-")]


def of(book, who):
    """The entries of one person, whatever the case of the name."""
    return [entry for entry in book if entry.who.casefold() == who.casefold()]
