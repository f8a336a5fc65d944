"""A task that trains in a moment: real digits and a small network."""

TASK = {
    "data": {"name": "digits"},
    "model": {"name": "digits_net", "train": {"images": 12_000, "lr": 0.1, "batch_size": 64}},
}
