"""Scores and a target become widths: which channels stay."""
