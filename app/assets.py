"""Where the files that are not code live: style sheets, icons and templates."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def asset_path(*parts: str) -> Path:
    """Path of a file or folder below `assets/`, in a checkout as well as in an installed package."""
    packaged = _PACKAGE / "_assets"
    return (packaged if packaged.is_dir() else _PACKAGE.parent / "assets").joinpath(*parts)
