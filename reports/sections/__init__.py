"""The sections of a study's report. Imports no page."""
