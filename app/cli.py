"""The command `factory`: serve, check and run files, people and tokens, and what this machine has."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from app import logs
from app.images import image_cli
from app.settings import Settings
from nodes.blueprint import Blueprint
from nodes.errors import FactoryError
from runtime.policy import Actor, Role

if TYPE_CHECKING:
    from app.accounts import Accounts
    from app.auth import Auth
    from nodes.check import Finding
    from runtime.factory import Factory
    from runtime.views import RunView

P = ParamSpec("P")

cli = typer.Typer(
    name="factory",
    help="Draw an agent, test it, deploy it, trust it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
user_cli = typer.Typer(help="People who may sign in.", no_args_is_help=True)
token_cli = typer.Typer(help="Tokens for programs that call the API.", no_args_is_help=True)
cli.add_typer(user_cli, name="user")
cli.add_typer(token_cli, name="token")
cli.add_typer(image_cli, name="image")


def main() -> None:
    """The console script."""
    logs.configure()
    cli()


def in_words(command: Callable[P, None]) -> Callable[P, None]:
    """Every error that we can explain ends the command with its sentence and fix, never with a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except FactoryError as error:
            fail(error)

    return run


def fail(error: FactoryError) -> NoReturn:
    """Say what is wrong and what to do, and end."""
    typer.secho(error.message, fg="red", err=True)
    if error.fix:
        typer.echo(error.fix, err=True)
    raise typer.Exit(1)


# --- serve -------------------------------------------------------------------------------------------------------


@cli.command()
@in_words
def serve() -> None:
    """Start the web application. Settings come from FACTORY_… variables; `factory doctor` shows them."""
    from app.main import installation
    from app.rights import given_up

    settings = Settings.load()
    _check_port(settings)
    with given_up(settings, installation(settings)) as settings:
        _serve(settings)


def _serve(settings: Settings) -> None:
    import uvicorn

    from app.frames import LARGEST_FRAME
    from app.main import Door, create_app

    door = create_app(settings)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _settle_memory()
                _announce(settings, door)

    def _announce(settings: Settings, door: Door) -> None:
        print(f"Agent Factory: {settings.url}", flush=True)
        if door.setup_url:
            print(f"Set up: {door.setup_url}", flush=True)

    server = Server(
        uvicorn.Config(
            door,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws_max_size=LARGEST_FRAME,
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
    )
    # It leaves with SystemExit when it cannot start, and with KeyboardInterrupt after Ctrl-C has ended it well.
    with contextlib.suppress(SystemExit, KeyboardInterrupt):
        server.run()
    if door.problem is not None:
        fail(door.problem)
    if not server.started:
        raise typer.Exit(1)


def _settle_memory() -> None:
    """What is loaded by now stays: the collector need not look through it again and again, which costs half of a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.is_loopback and not _can_bind(probe, settings):
            raise FactoryError(
                f"Port {settings.port} is taken by another program.",
                fix="Stop that program, or choose another port: FACTORY_PORT=8081 factory serve",
            )


def _can_bind(probe: socket.socket, settings: Settings) -> bool:
    try:
        probe.bind(("127.0.0.1" if settings.host == "localhost" else settings.host, settings.port))
    except OSError:
        return False
    return True


# --- check and run files -----------------------------------------------------------------------------------------


@cli.command()
@in_words
def check(file: Path, as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False) -> None:
    """Check an agent in a file. Ends with 1 when something must be repaired before it can be deployed."""
    blueprint = read_blueprint(file)

    async def find() -> list[Finding]:
        async with bench() as (factory, who):
            return list(await factory.blueprints.check(who, blueprint))

    findings = asyncio.run(find())
    if as_json:
        print(json.dumps([plain(one) for one in findings], indent=2, default=str))
    elif not findings:
        print(f"“{blueprint.name}”: nothing to say against it.")
    else:
        for one in findings:
            _print_finding(blueprint, one)
    if any(one.severity == "error" for one in findings):
        raise typer.Exit(1)


@cli.command("compile")
@in_words
def compile_(
    file: Path,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write it; else it is printed.")] = None,
    agents: Annotated[
        list[str] | None,
        typer.Option("--agent", help="An agent that it calls, as ID=FILE; may be given several times."),
    ] = None,
) -> None:
    """Write an agent in a file as one Python module, which runs without the factory and without its safeguards."""
    from nodes.catalog import catalog
    from runtime.compiling import compile_python

    called = {}
    for one in agents or ():
        id_, given, path = one.partition("=")
        if not given:
            raise FactoryError(f"“{one}” names no file.", fix="Write it as `--agent bp_1=other.json`.")
        called[id_] = read_blueprint(Path(path))
    text = compile_python(read_blueprint(file), catalog(), called)
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FactoryError(f"{out} cannot be written: {error.strerror}.", fix="Choose another place.") from None
    typer.echo(f"{out}: {len(text.splitlines())} lines.")


def _print_finding(blueprint: Blueprint, one: Finding) -> None:
    placed = blueprint.node(one.node) if one.node else None
    place = f"“{placed.name or placed.type}”: " if placed else ""
    colour = {"error": "red", "warning": "yellow"}.get(one.severity)
    typer.secho(f"{one.severity} ({one.tier})", fg=colour, nl=False)
    typer.echo(f"  {place}{one.sentence}")
    if one.fix:
        typer.echo(f"    → {one.fix}")


@cli.command()
@in_words
def run(
    file: Path,
    input_: Annotated[str, typer.Option("--input", help="What the trigger receives: JSON, or @file.json.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Really do what steps do outside; else it is only told.")
    ] = False,
    trigger: Annotated[str, typer.Option(help="The id of the trigger to start from.")] = "",
    seconds: Annotated[float, typer.Option(help="How long to wait for its end.")] = 300,
) -> None:
    """Run an agent from a file, here and now, without a server and without leaving anything behind."""
    blueprint = read_blueprint(file)
    given = read_input(input_)

    async def go() -> RunView:
        async with bench(Settings.load()) as (factory, who):
            if live:
                draft = await factory.blueprints.create(who, blueprint)
                run_id = await factory.runs.start(who, draft.id, given, trigger=trigger or None)
            else:
                run_id = await factory.sandbox.start(who, blueprint, given, trigger=trigger or None)
            return await factory.runs.wait(who, run_id, seconds)

    view = asyncio.run(go())
    if as_json:
        print(json.dumps(as_result(view), indent=2, default=str, ensure_ascii=False))
    else:
        _print_run(view)
    if view.info.state != "succeeded":
        raise typer.Exit(1)


def as_result(view: RunView) -> dict[str, Any]:
    """A run as `--json` prints it."""
    steps = [
        {
            "node": one.node,
            "name": one.name,
            "iteration": one.iteration,
            "state": one.state,
            "output": one.output,
            "error": one.error,
            "note": one.note,
        }
        for one in view.steps
    ]
    return {
        "state": view.info.state,
        "output": view.output,
        "error": view.info.error,
        "effects": list(view.effects),
        "steps": steps,
    }


def _print_run(view: RunView) -> None:
    marks = {"succeeded": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("–", None), "waiting": ("…", "yellow")}
    for step in view.steps:
        mark, colour = marks.get(str(step.state), ("·", None))
        typer.secho(f"{mark} {step.name}", fg=colour, nl=False)
        typer.echo(f"  {step.note}" if step.note else "")
        if step.error:
            typer.echo(f"    {step.error.get('message', step.error)}")
    for effect in view.effects:
        typer.echo(f"would: {effect}")
    typer.echo(f"{view.info.state}")
    if view.info.state == "waiting":
        typer.echo("It waits for a person or a moment, so it goes on only on a server.")
    if view.output is not None:
        print(json.dumps(view.output, indent=2, default=str, ensure_ascii=False))


def read_blueprint(file: Path) -> Blueprint:
    """The agent in a file. Raises FactoryError in words."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise FactoryError(f"{file} cannot be read: {error.strerror}.", fix="Check the path.") from None
    except UnicodeDecodeError:
        raise FactoryError(f"{file} is not a text file.", fix="Give the JSON file of an agent.") from None
    return Blueprint.parse(text)


def read_input(text: str) -> Any:
    """What `--input` means: nothing, JSON, or the JSON in @file."""
    if not text:
        return None
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise FactoryError(f"{text[1:]} cannot be read: {error.strerror}.", fix="Check the path.") from None
    except ValueError as error:
        raise FactoryError(f"--input is not JSON: {error}.", fix="""Write it like --input '{"total": 5}'.""") from None


def plain(value: Any) -> Any:
    """A frozen view as plain data."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


@contextlib.asynccontextmanager
async def bench(settings: Settings | None = None) -> AsyncIterator[tuple[Factory, Actor]]:
    """A Factory of its own in a temporary folder, with one person in it; gone at the end."""
    from app.accounts import NOBODY_SIGNS_IN, Accounts
    from app.main import factory_options
    from runtime.factory import Factory

    with tempfile.TemporaryDirectory(prefix="factory-") as folder:
        given = settings.model_dump() if settings else {"docker": "off"}
        own = Settings.load(**{**given, "home": Path(folder), "database_url": None, "pool_size": 0})
        async with Factory(factory_options(own, ticking=False)) as factory:
            person = await Accounts(factory.db).found_team(
                "Command line", name="Command line", email="cli@localhost.invalid", password_hash=NOBODY_SIGNS_IN
            )
            assert person is not None
            yield factory, person.actor


# --- people and tokens -------------------------------------------------------------------------------------------


@user_cli.command("add")
@in_words
def user_add(
    email: str,
    name: Annotated[str, typer.Option(prompt="Name", help="What others see.")],
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.DEVELOPER,
    team: Annotated[str, typer.Option(help="Name of the team, when this is the first account.")] = "",
    password_stdin: Annotated[bool, typer.Option(help="Read the password from standard input.")] = False,
) -> None:
    """Add somebody who may sign in. The first account is the admin of a new team."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)

    async def add() -> str:
        async with accounts() as (auth, known):
            tenant = await known.first_tenant()
            if tenant is None:
                await auth.found(name=name, email=email, password=password, team=team or f"Team of {name}")
                return str(Role.ADMIN)
            await auth.add_person(tenant, name=name, email=email, password=password, role=role)
            return str(role)

    print(f"{email} can sign in now, as {asyncio.run(add())}.")


@token_cli.command("create")
@in_words
def token_create(
    name: str,
    role: Annotated[Role, typer.Option(help="What the program may do.")] = Role.DEVELOPER,
    days: Annotated[int, typer.Option(help="How many days it lasts.")] = 90,
) -> None:
    """Make a token for a program. It is shown once; send it as `Authorization: Bearer …`."""

    async def make() -> str:
        async with accounts() as (auth, _):
            who = Actor(await auth.first_tenant(), "command-line", "Command line", Role.ADMIN, "command")
            return await auth.make_token(who, name=name, role=role, days=days)

    print(asyncio.run(make()))


@contextlib.asynccontextmanager
async def accounts() -> AsyncIterator[tuple[Auth, Accounts]]:
    """The accounts of this installation, beside a server that may be running."""
    from app.accounts import Accounts
    from app.main import make_auth
    from storage.database import Database

    settings = Settings.load()
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with Database(settings.database()) as db:
        known = Accounts(db)
        yield make_auth(settings, known), known


# --- doctor ------------------------------------------------------------------------------------------------------


@cli.command()
@in_words
def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Say what was found on this machine, what is missing, what that would add, and how to get it."""
    from app.doctor import examine

    settings = Settings.load()
    lines = asyncio.run(examine(settings))
    if as_json:
        print(json.dumps([plain(one) for one in lines], indent=2))
        return
    for line in lines:
        typer.secho("found    " if line.found else "missing  ", fg="green" if line.found else "yellow", nl=False)
        typer.echo(f"{line.name}: {line.detail}")
        if not line.found:
            typer.echo(f"         It would add {line.adds}. {line.get}")
    typer.echo("\nSettings")
    for name in Settings.model_fields:
        value = getattr(settings, name)
        shown = "(set)" if hasattr(value, "get_secret_value") and value.get_secret_value() else str(value or "—")
        if name == "database_url" and value:
            shown = "(set)"
        origin = "" if f"FACTORY_{name.upper()}" in os.environ else "  (default)"
        typer.echo(f"  FACTORY_{name.upper():<20} {shown}{origin}")
