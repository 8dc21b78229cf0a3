"""The losses of DMUE."""
