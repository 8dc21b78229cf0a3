"""Pieces that several methods use: losses and samplers."""
