"""What every room stands on: files, names, addresses, credentials, processes."""
