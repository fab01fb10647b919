"""Files that are not code are found in a checkout and in an installed package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from app.assets import asset_path

ROOT = Path(__file__).resolve().parents[2]
FIND = "from app.assets import asset_path; print(asset_path('templates'), asset_path('web').exists())"


def test_in_a_checkout_they_are_beside_the_code() -> None:
    assert asset_path("web", "package.json").is_file()


def test_an_installed_package_brings_them_and_the_canvas_libraries(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    build = [str(uv), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path)]
    locked = ["--build-constraints", "deploy/requirements-build.lock"]
    subprocess.run([*build, *locked, str(ROOT)], cwd=ROOT, check=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    assert "app/canvas/vendor/vue-flow__core/index.js" in names
    done = subprocess.run([sys.executable, "-c", FIND], cwd=installed, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(installed / "app" / "_assets" / "templates"), "False"]
    shipped = {name.removeprefix("app/_assets/") for name in names if name.startswith("app/_assets/")}
    kept = {path.relative_to(ROOT / "assets").as_posix() for path in (ROOT / "assets").rglob("*") if path.is_file()}
    assert shipped == {name for name in kept if not name.startswith("web/")}
