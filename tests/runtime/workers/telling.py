"""Code that tries things in a worker, and tells which of them it could do."""

from textwrap import dedent

# Tells of everything that did not fail: `tried("name", lambda: …)`.
TELL = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
reached = []
def tried(name, deed):
    try:
        answer = deed()
    except BaseException:
        return
    if answer != -1:
        reached.append(name)
"""


def telling(code: str) -> str:
    """An attempt that returns what it reached."""
    return TELL + dedent(code) + "\nreturn reached\n"
