"""The generated parts of `docs/`: every command, every key of a space file, every method, from what reads them."""
