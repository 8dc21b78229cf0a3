"""What the ledger says: records, and the numbers computed from them. No layout."""
