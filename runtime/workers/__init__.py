"""Isolated execution of people's code: backends, workers, and the pool that hands them out."""
