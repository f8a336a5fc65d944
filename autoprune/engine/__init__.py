"""The pruning engine: which channels live and die together, what that costs, and the cut.

It knows no data and no training.
"""
