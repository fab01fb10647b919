"""A server of its own process with pages that note who pressed what, for attacks on its sockets: `python -m tests.app.probe`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from nicegui import ui

from app import theme
from app.frames import LARGEST_FRAME
from app.main import create_app
from app.permissions import Permission, current_actor, on, page, public_page
from app.settings import Settings

notes = Path()


def note(text: str) -> None:
    """Write down what happened."""
    with notes.open("a") as file:
        file.write(f"{text}\n")


@page("/probe", "Probe")
def probe() -> None:
    """A button that anybody who may view may press, one for admins, an upload, and a field."""
    with theme.frame("Probe"):
        ui.button("Press", on_click=on(lambda: note(f"pressed by {current_actor().name}")))
        ui.button("Rule", on_click=on(lambda: note(f"ruled by {current_actor().name}"), Permission.ADMIN))
        ui.button("Break", on_click=on(lambda: 1 / 0))
        ui.button("Bare", on_click=lambda: note("bare"))
        ui.input("Field", on_change=on(lambda event: note(f"typed {len(event.value)}")))
        ui.upload(on_upload=on(lambda event: note(f"uploaded {event.file.name}")))


@page("/broken", "Broken")
async def broken() -> None:
    """A page that fails while it is built."""
    raise RuntimeError("the secret cause")


@public_page("/open/{slug}", "Open")
def open_page(slug: str) -> None:
    """A page for anybody."""
    with theme.public_frame("Open"):
        ui.button("Send", on_click=on(lambda: note(f"sent to {slug}"), None))
        ui.upload(on_upload=on(lambda event: note(f"sent file {event.file.name}"), None))


def main() -> None:
    """Serve on the given folder and port."""
    global notes
    home = Path(sys.argv[1])
    notes = home.with_name("notes.txt")
    settings = Settings.load(home=home, port=int(sys.argv[2]), docker="off", pool_size=0)
    door = create_app(settings)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[object] | None = None) -> None:
            await super().startup(sockets)  # type: ignore[arg-type]
            print(f"Set up: {door.setup_url}", flush=True)

    Server(uvicorn.Config(door, host="127.0.0.1", port=settings.port, ws_max_size=LARGEST_FRAME)).run()


if __name__ == "__main__":
    main()
