"""Tests are specifications: what the product does, on real engines, databases and browsers."""
