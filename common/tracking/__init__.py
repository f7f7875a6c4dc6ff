"""The record of a job, where it comes from, and its view in W&B."""
