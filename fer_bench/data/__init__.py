"""Source files to rows: stores, splits, folds and imbalance profiles."""
