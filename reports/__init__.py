"""Tables, figures and pages, computed from the ledger alone."""
