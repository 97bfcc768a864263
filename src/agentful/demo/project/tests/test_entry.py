import unittest

from tally.commands import COMMANDS
from tally.entry import Entry


class EntryTest(unittest.TestCase):
    def test_add_writes_an_entry_down(self):
        book = []
        self.assertEqual(COMMANDS["add"](book, "2026-03-14", "ada", "450", "pie"), "1 entries")
        self.assertEqual(book, [Entry("2026-03-14", "ada", 450, "pie")])
