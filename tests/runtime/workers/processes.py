"""The processes of the workers, as this machine sees them."""

from pathlib import Path


def first_processes(home: str) -> list[int]:
    """The host's process ids of the first process of each worker of this installation."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if b"/factory/inside.py" not in (entry / "cmdline").read_bytes():
                continue
            mounts = (entry / "mountinfo").read_text()
            last = (entry / "status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1]
        except (OSError, IndexError):
            continue
        if f"{home}/" in mounts and last == "1":
            found.append(int(entry.name))
    return found


def workers_of(home: str) -> dict[str, int]:
    """The host's process id of the first process of each worker of this installation, by the worker's id."""
    found = {}
    for process in first_processes(home):
        try:
            mounts = Path(f"/proc/{process}/mountinfo").read_text()
        except OSError:
            continue
        if f"{home}/" in mounts:
            found[mounts.split(f"{home}/")[1].split()[0]] = process
    return found
