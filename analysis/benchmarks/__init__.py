"""Speed, measured side by side: each module runs alone with `python -m` and needs no data of its own (`make bench`)."""
