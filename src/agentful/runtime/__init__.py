"""Everything that waits: the loop, processes, git, the journal."""
