"""Searches for each method's best configuration."""
