"""How attention gets from a teacher to its student."""
