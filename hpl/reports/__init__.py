"""Figures and tables from what the other stages wrote. No torch here."""
