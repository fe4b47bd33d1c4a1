"""Launcher, workers and submissions."""
