import unittest

from tally.rounding import HALF, to_unit


class RoundingTest(unittest.TestCase):
    def test_to_the_nearest(self):
        self.assertEqual([to_unit(c) for c in (149, 151, 0)], [1, 2, 0])

    def test_a_half(self):
        self.assertEqual([to_unit(c) for c in (150, 250)], [2, 3 if HALF == "up" else 2])
