"""Result files, the work folder, provenance, whole writes and locks."""
