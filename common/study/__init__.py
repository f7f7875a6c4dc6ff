"""A study: stages that run, claims that are judged, a report that is written. See ARCHITECTURE.md."""
