"""Launchers: where the workers of a study are started."""
