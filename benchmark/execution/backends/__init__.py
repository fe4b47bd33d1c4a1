"""Where jobs run: one file a backend."""
