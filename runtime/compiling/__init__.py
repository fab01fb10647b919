"""Blueprints as Python modules of their own."""

from runtime.compiling.module import called_by, compile_python

__all__ = ["called_by", "compile_python"]
