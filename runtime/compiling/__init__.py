"""Blueprints as Python modules of their own."""

from runtime.compiling.module import compile_python

__all__ = ["compile_python"]
