"""Retrieval data sets: the classes of the test split are never seen in training; see ``dataset.Retrieval``."""
