"""Blocks, and their Markdown, HTML, LaTeX and picture files. Imports no section."""
