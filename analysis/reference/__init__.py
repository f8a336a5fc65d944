"""The generated parts of `docs/`: every key of a space file, every method, from the classes that read them."""
