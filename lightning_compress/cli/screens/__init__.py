"""Screens: tables, names and notes as a terminal shows them."""
