"""Which recipe comes next: the first ones by plan, the others by one of Optuna's samplers."""
