"""Object detection: data, networks and mean average precision."""
