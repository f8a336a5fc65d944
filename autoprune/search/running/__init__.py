"""A search that runs: what is handed out when, what came of it, and the executor that runs it in this process."""
