"""What ``fer-bench new`` writes: read as text, never imported. NewMethod, new_method and "New method" are replaced."""
