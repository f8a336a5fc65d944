"""Launch files: how to start a search on AWS, GCP, machines of your own, Kubernetes and SLURM. Data, no code."""
