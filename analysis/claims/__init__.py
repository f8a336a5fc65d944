"""Claims about accuracy and cost, each with the study that shows it."""
