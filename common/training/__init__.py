"""Trainings that end with the same bits however often they are killed."""
