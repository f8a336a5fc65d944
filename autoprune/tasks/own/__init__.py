"""Tasks made of what users bring: loaders, a model, a loss and a metric."""
