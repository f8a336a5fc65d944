"""One trial: a recipe and a task become an outcome."""
