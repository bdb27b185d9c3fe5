"""Hyperparameter search: Optuna chooses, Ray runs, the study on disk is the truth."""
