"""Measurements of the dispatching task."""
