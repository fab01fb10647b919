"""The files of a code step: files of the team that it reads, and those that it writes and that become files of the team."""

import asyncio
import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nodes.base import NodeError, Tables
from runtime.limits import LIMITS
from runtime.workers.store import Parcel, Store

MIB: Final = 1024 * 1024
MOST_READ: Final = 64 * MIB
MOST_KEPT: Final = LIMITS["upload_bytes"].default
PATTERN: Final = frozenset("*?[")


class CodeFiles:
    """Takes files from the shelf to a worker and back. In between they lie in the store, one after the other."""

    def __init__(self, store: Store, tenant: str, tables: Tables) -> None:
        self._store, self._tenant, self._tables = store, tenant, tables

    async def pack(self, reads: Sequence[str], keeps: Sequence[str]) -> Parcel:
        """What goes with a job. Raises NodeError for a file that is not there, or too much of them."""
        bring, size = {}, 0
        for name in dict.fromkeys(reads):
            content = await self._tables.read_file(name)
            size += len(content)
            if size > MOST_READ:
                raise NodeError(
                    f"The files that the code reads are more than {MOST_READ // MIB} MB together.",
                    category="limit",
                    fix="Read fewer files, or smaller ones.",
                )
            try:
                bring[name] = await asyncio.to_thread(self._store.put, self._tenant, content)
            except OSError as error:
                raise NodeError(
                    f"The server cannot put the file “{name}” on its disk: {error.strerror or error}.",
                    retry=True,
                    category="worker",
                    fix="Ask whoever runs this installation to free room on its disk, then run it again.",
                ) from error
        return Parcel(self._store, self._tenant, bring, tuple(keeps), MOST_KEPT)

    async def keep(self, found: Mapping[str, str], keeps: Sequence[str]) -> list[Mapping[str, Any]]:
        """Put what a job left on the shelf. Raises NodeError when a file that was named is missing."""
        for name in keeps:
            if name not in found and not PATTERN.intersection(name):
                raise NodeError(
                    f"The code did not write the file “{name}”, which is to be kept.",
                    fix="Write it beside the code, or take it out of “Files to keep”.",
                )
        kept: list[Mapping[str, Any]] = []
        for name, digest in sorted(found.items()):
            if "/" not in name:  # a pattern such as * also meets what lies in folders
                content = await asyncio.to_thread(self._store.read, self._tenant, digest)
                kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
                kept.append(dict(await self._tables.write_file(name, content, kind)))
        return kept
