"""The command line: one light entry, sub-commands imported when called."""
