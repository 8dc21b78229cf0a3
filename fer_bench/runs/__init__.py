"""One run from its spec to its record, and studies of many."""
