"""Crews: agents that are started together, work together, and end together."""
