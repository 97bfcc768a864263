"""Who has spent how much."""

from collections import Counter


def by_person(book):
    """Cents for each person, most first."""
    spent = Counter()
    for entry in book:
        spent[entry.who] += entry.cents
    return dict(spent.most_common())


def settle(book):
    """What each has to get (or, below zero, to give) for all to have spent the same."""
    spent = by_person(book)
    if not spent:
        return {}
    share, rest = divmod(sum(spent.values()), len(spent))
    # The odd cents go to the first ones, so that it adds up.
    return {who: cents - share - (i < rest) for i, (who, cents) in enumerate(spent.items())}
