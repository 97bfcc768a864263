import io
import unittest

from tally.entry import Entry
from tally.store import load, save


class StoreTest(unittest.TestCase):
    def test_what_was_saved_is_loaded(self):
        book = [Entry("2026-03-01", "ada", 1000, "a pie, and tea"), Entry("2026-03-02", "bob", 5)]
        file = io.StringIO(newline="")
        save(book, file)
        file.seek(0)
        self.assertEqual(load(file), book)
