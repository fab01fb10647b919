"""`factory image`: worker images of one's own, made with a progress bar and a log, and locked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.settings import Settings
from nodes.errors import FactoryError

image_cli = typer.Typer(help="Make and remove images for workers.", no_args_is_help=True)


@image_cli.command("build")
def build(
    packages: Annotated[list[str] | None, typer.Argument(help="Python packages, such as httpx or polars>=1.")] = None,
    like: Annotated[str, typer.Option(help="What it is built on: base, data or node.")] = "base",
    lock: Annotated[Path | None, typer.Option(help="A lock to build from; written when there is none yet.")] = None,
    dockerfile: Annotated[Path | None, typer.Option(help="Steps to run instead, without a network.")] = None,
    preload: Annotated[list[str] | None, typer.Option(help="A module that every worker has loaded beforehand.")] = None,
) -> None:
    """Make an image on every engine. Its name goes into FACTORY_WORKER_SIZES: `mine:like=medium,image=custom:…`."""
    what: dict[str, Any] = {"like": like, "packages": packages or [], "preload": preload or []}
    if dockerfile is not None:
        what["dockerfile"] = _read(dockerfile)
    elif lock is not None and lock.exists():
        what |= {"lock": _read(lock), "packages": []}
    _say(lambda: asyncio.run(_build(Settings.load(), what, lock)))


@image_cli.command("drop")
def drop(image: Annotated[str, typer.Argument(help="Its name: custom:…")]) -> None:
    """Remove an image that no worker uses."""
    _say(lambda: asyncio.run(_drop(Settings.load(), image)))


async def _build(settings: Settings, what: dict[str, Any], lock: Path | None) -> None:
    made = None
    for backend in _engines(settings):
        await backend.open()
        try:
            with typer.progressbar(length=100, label="Image") as bar:
                async for step in backend.build(**what):
                    bar.update(max(0, int(step.progress * 100) - bar.pos))
                    typer.echo(f"  {step.line}", err=True)
                    made = step
        finally:
            await backend.close()
        if made is not None and made.lock:
            what |= {"lock": made.lock, "packages": []}  # the same on every engine
    if made is None or not made.image:
        raise FactoryError("No image was made.")
    typer.echo(made.image)
    if lock is not None and made.lock:
        await asyncio.to_thread(lock.write_text, made.lock)


async def _drop(settings: Settings, image: str) -> None:
    for backend in _engines(settings):
        await backend.open()
        try:
            await backend.drop(image)
        finally:
            await backend.close()


def _engines(settings: Settings) -> list[Any]:
    from runtime.workers.choose import addresses
    from runtime.workers.docker import DockerBackend

    if settings.docker == "off":
        raise FactoryError("Docker is switched off by FACTORY_DOCKER.", fix="Set FACTORY_DOCKER=auto.")
    return [DockerBackend("images", url=url or None, keep=True) for url in addresses(settings.docker).values()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from None


def _say(work: Callable[[], None]) -> None:
    try:
        work()
    except FactoryError as error:
        typer.echo(f"{error.message} {error.fix or ''}".strip(), err=True)
        raise typer.Exit(1) from None
