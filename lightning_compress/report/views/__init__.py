"""Views of a report: tables, storage stages and pictures."""
