"""Everything that decides, and nothing that waits: no clock, no disk, no process, no network."""
