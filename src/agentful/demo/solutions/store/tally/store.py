"""The book as a CSV file."""

import csv

from .entry import Entry

FIELDS = ("day", "who", "cents", "what")


def load(file):
    """The entries of an open file."""
    return [Entry(row["day"], row["who"], int(row["cents"]), row["what"]) for row in csv.DictReader(file)]


def save(book, file):
    """Write entries to an open file."""
    writer = csv.writer(file)
    writer.writerow(FIELDS)
    writer.writerows((e.day, e.who, e.cents, e.what) for e in book)
