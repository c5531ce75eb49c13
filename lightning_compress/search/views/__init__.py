"""Views of the results of a search: tables and pictures."""
