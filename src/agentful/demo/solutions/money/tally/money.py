"""Amounts of money, as text and as cents."""


def parse(text):
    """``"12.50"`` or ``"1,234.5"`` as cents. Raises ``ValueError`` for what is no amount."""
    whole, _, part = text.replace(",", "").strip().partition(".")
    sign = -1 if whole.startswith("-") else 1
    if len(part) > 2 or not (whole.lstrip("-") + part).isdigit():
        raise ValueError(f"not an amount: {text!r}")
    return int(whole or 0) * 100 + sign * int(part.ljust(2, "0"))


def show(cents):
    """Cents as ``"1,234.50"``."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"
