"""Integer labels beside the entries of tensors: how they are held, tied and frozen during one forward pass."""
