"""Ultralytics' detectors: their networks, data sets and losses as a task. Their library is AGPL-3.0, and an extra."""
