"""Reading Parquet shards."""
