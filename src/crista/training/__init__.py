"""LEARN: a Plan and samples -> checkpoints, as a generator of events."""
