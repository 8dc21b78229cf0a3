"""The MLflow mirror of the ledger."""
