"""An arm."""

FACTOR = 2.0
