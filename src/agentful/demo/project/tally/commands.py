"""What can be done on the command line, by name."""


def add(book, *args):
    """Write down an entry: DAY WHO CENTS [WHAT]."""
    from .entry import Entry

    day, who, cents, *what = args
    book.append(Entry(day, who, int(cents), " ".join(what)))
    return f"{len(book)} entries"


COMMANDS = {
    "add": add,
}
