"""What a forward pass takes: of whole models where they will run, and of layers by their width."""
