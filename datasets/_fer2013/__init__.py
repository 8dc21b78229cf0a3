"""Folder layouts of FER2013."""
