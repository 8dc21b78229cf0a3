"""Published numbers, and what ours may be compared with."""
