"""Whole pages beside a study's report, and the terminal's table."""
