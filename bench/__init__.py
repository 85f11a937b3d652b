"""Measurements: `python -m bench NAME` runs one suite and writes rows of (name, value, unit)."""
