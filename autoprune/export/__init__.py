"""A pruned model as files that load anywhere, and the card that says what they are."""
