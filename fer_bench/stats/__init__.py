"""What a number is worth: metrics, intervals, tests. Imports no torch."""
