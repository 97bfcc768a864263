import unittest

from tally import money


class MoneyTest(unittest.TestCase):
    def test_parse_and_show_are_inverse(self):
        for text in ("0.00", "12.50", "1,234.05", "-3.20"):
            self.assertEqual(money.show(money.parse(text)), text)

    def test_what_is_no_amount_is_refused(self):
        for text in ("", "a", "1.234"):
            with self.assertRaises(ValueError):
                money.parse(text)
