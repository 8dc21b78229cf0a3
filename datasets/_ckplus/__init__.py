"""Layouts of CK+."""
