"""Votes and layouts of FER+."""
