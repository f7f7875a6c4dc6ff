"""One folder, one thesis. Projects import common, never each other."""
