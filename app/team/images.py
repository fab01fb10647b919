"""Settings → Worker images: libraries for code steps and crews, locked, and built while one watches."""

from __future__ import annotations

import contextlib
from typing import Any

from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import field_error, heading, notice
from nodes.errors import FactoryError

LINES = 400
"""Lines of the log that stay on the page."""
PACKAGES = "Python packages"
DOCKERFILE = "Dockerfile"
_LIKE = {
    "base": "Python alone",
    "data": "With numpy, pandas, httpx and pydantic",
    "node": "With Node.js",
}


async def build() -> None:
    """The form, the log under it, and what came of it."""
    heading("Worker images", 2)
    ui.label(
        "Code runs in closed boxes that bring Python and nothing else. Here you make a box with more in it: libraries, each "
        "locked by its hash, or the steps of a Dockerfile, which run without a network."
    ).classes("af-muted mb-4")
    Workshop().build()


class Workshop:
    """The form of one open page."""

    def build(self) -> None:
        """Draw it."""
        with ui.element("div").classes("af-fields"):
            self.kind = ui.toggle([PACKAGES, DOCKERFILE], value=PACKAGES, on_change=on(self._switch)).props(
                'aria-label="What it is made from"'
            )
            self.like = ui.select(_LIKE, value="base", label="Built on").mark("image-like")
            self.packages = ui.textarea("Packages, one a line", placeholder="polars>=1\nbeautifulsoup4").mark(
                "image-packages"
            )
            self.packages.props('stack-label autogrow maxlength=10000 hint="A name, and versions if you like."')
            self.preload = ui.input("Loaded beforehand", placeholder="polars, bs4").mark("image-preload")
            self.preload.props(
                'stack-label maxlength=500 hint="Modules that every worker has ready, separated by commas."'
            )
            self.dockerfile = ui.textarea("Dockerfile", placeholder="RUN mkdir /opt/rules").mark("image-dockerfile")
            self.dockerfile.props(
                'stack-label autogrow maxlength=60000 hint="RUN, ENV, ARG, LABEL and WORKDIR; no network."'
            )
        self.dockerfile.set_visibility(False)
        with ui.element("div").classes("af-actions mt-4"):
            self.start = ui.button("Build the image", on_click=on(self.work, Permission.ADMIN)).mark("image-build")
        self.bar = ui.linear_progress(value=0, show_value=False).classes("mt-4").props('aria-label="How far it is"')
        self.bar.set_visibility(False)
        self.log = ui.log(max_lines=LINES).classes("af-log mt-4").props('role=log aria-label="Log"')
        self.log.set_visibility(False)
        self.result = ui.element("div").classes("mt-4").mark("image-result")

    def _switch(self, event: Any) -> None:
        own = event.value == DOCKERFILE
        self.dockerfile.set_visibility(own)
        self.packages.set_visibility(not own)
        self.preload.set_visibility(not own)

    def _what(self) -> dict[str, Any]:
        if self.kind.value == DOCKERFILE:
            return {"like": self.like.value, "dockerfile": self.dockerfile.value or ""}
        packages = [line.strip() for line in (self.packages.value or "").splitlines() if line.strip()]
        preload = [name.strip() for name in (self.preload.value or "").split(",") if name.strip()]
        return {"like": self.like.value, "packages": packages, "preload": preload}

    async def work(self) -> None:
        """Build it, and show each line as it comes."""
        self.result.clear()
        self.log.clear()
        self.bar.set_value(0)
        self.bar.set_visibility(True)
        self.log.set_visibility(False)
        self.start.set_enabled(False)
        try:
            steps = current_factory().fleet_desk.build_image(current_actor(), **self._what())
            async with contextlib.aclosing(steps):
                async for step in steps:
                    self.bar.set_value(round(step.progress, 3))
                    self.log.set_visibility(True)
                    self.log.push(step.line)
            self._ready(step.image, step.lock)
        except FactoryError as error:
            with self.result:
                field_error(f"{error.message} {error.fix or ''}".strip())
        finally:
            self.bar.set_visibility(False)
            self.start.set_enabled(True)

    def _ready(self, image: str, lock: str) -> None:
        with self.result:
            notice(f"The image {image} is ready.", tone="good", icon="check")
            ui.label("Whoever runs this installation gives it a size, with this line in its settings:").classes("mt-4")
            ui.label(f"FACTORY_WORKER_SIZES=mine:like=medium,image={image}").classes("af-log").mark("image-line")
            if lock:
                ui.label("What is in it, locked by its hashes. Keep this to build the same again:").classes("mt-4")
                ui.label(lock).classes("af-log").mark("image-lock")
