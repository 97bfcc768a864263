import unittest

from tally.entry import Entry
from tally.report import table


class ReportTest(unittest.TestCase):
    def test_table(self):
        book = [Entry("2026-03-01", "ada", 123456), Entry("2026-03-02", "bob", 5)]
        self.assertEqual(
            table(book).splitlines(),
            ["ada             1,234.56", "bob                 0.05", "together        1,234.61"],
        )
