"""A pruned model as files that load anywhere, and their model card."""
