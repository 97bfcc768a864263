import unittest

from tally.entry import Entry
from tally.filters import in_month, of

BOOK = [Entry("2026-03-01", "Ada", 1), Entry("2026-04-01", "bob", 2)]


class FiltersTest(unittest.TestCase):
    def test_in_month(self):
        self.assertEqual(in_month(BOOK, "2026-03"), BOOK[:1])

    def test_of_one_person(self):
        self.assertEqual(of(BOOK, "ada"), BOOK[:1])
