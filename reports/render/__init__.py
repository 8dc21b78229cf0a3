"""Tables and blocks, and their Markdown, HTML, LaTeX, CSV and figure files. Imports nothing else of the reports."""
