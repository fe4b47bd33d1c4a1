"""Contract check, timing, inspection of attention, and export."""
