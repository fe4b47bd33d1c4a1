"""Detectors on the backbones of finished runs."""
