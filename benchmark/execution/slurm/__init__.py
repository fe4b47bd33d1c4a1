"""Slurm: what a site wants in a job, and its commands."""
