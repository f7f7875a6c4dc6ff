"""Another arm."""

FACTOR = 3.0
