"""Pieces that several data sets use: images, tables, folders and class names."""
