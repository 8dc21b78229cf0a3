"""What is wrong with a data set: labels, duplicates, people."""
