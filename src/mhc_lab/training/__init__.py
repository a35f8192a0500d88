"""Training: one configuration becomes one finished run."""
