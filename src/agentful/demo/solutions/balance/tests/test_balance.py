import unittest

from tally.balance import by_person, settle
from tally.entry import Entry

BOOK = [Entry("2026-03-01", "ada", 1000), Entry("2026-03-02", "bob", 401), Entry("2026-03-02", "ada", 100)]


class BalanceTest(unittest.TestCase):
    def test_by_person(self):
        self.assertEqual(by_person(BOOK), {"ada": 1100, "bob": 401})

    def test_settling_adds_up_to_nothing(self):
        self.assertEqual(sum(settle(BOOK).values()), 0)
        self.assertEqual(settle([]), {})
