"""Trackers: what hears of a search beside its logs, and can neither end nor slow it."""
