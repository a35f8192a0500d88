"""Studies: a set of runs with one purpose, pulled by workers from an Optuna storage."""
