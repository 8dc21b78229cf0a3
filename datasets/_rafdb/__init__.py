"""RAF-DB's own files."""
