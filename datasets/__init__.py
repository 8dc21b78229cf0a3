"""Datasets: one file each, read by card, imported only when used."""
