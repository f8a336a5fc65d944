"""From a study folder to what a person reads: tables, figures, the HTML report. Never imports torch, ray or optuna."""
