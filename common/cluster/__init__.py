"""Clusters: sites and their rules, job scripts, schedulers' commands, ranks. Nothing here enters a fingerprint."""
