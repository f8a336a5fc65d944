"""Semantic segmentation: data, networks, losses and metrics."""
