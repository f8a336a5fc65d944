"""What papers claim, looked for in real runs."""
