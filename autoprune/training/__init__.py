"""Trains and measures one network: the loop, where it runs, and what a step adds up to."""
