"""Build hook: fetches the canvas libraries before the package is built and puts `assets/` into an ordinary wheel."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackageAssets(BuildHookInterface[Any]):
    """Makes the package complete: what the browser needs and what `app.assets.asset_path` finds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files; `version` is "editable" for an install from a checkout."""
        assets = Path(self.root) / "assets"
        runpy.run_path(str(assets / "web" / "fetch.py"))["fetch"]()
        if version != "editable":
            folders = (entry for entry in assets.iterdir() if entry.is_dir() and entry.name != "web")
            build_data["force_include"].update({str(folder): f"app/_assets/{folder.name}" for folder in folders})
