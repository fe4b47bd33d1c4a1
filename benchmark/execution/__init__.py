"""Launcher, workers and submissions: what trains where, and what has become of it."""
