"""Methods: one file each, read by card, imported only when run."""
