"""Helpers that several figures share: rows of data, style, panels, forests, lines."""
