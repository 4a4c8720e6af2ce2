"""Named boundaries of the engine: the places at which a process may die or stall.

Tests listen, and let a process die or stop at one (`tests/crash`). While nobody listens, reaching one is a comparison.
"""

from collections.abc import Callable

TAKEN = "after take, before do"
INTENDED = "after intent, before send"
WRITTEN = "in the transaction, before commit"
COMMITTED = "after commit, before enqueue"
_listener: Callable[[str], None] | None = None


def called(verb: str) -> str:
    """The boundary after a verb, before anything of its outcome is stored."""
    return f"after {verb}, before commit"


def reach(step: str, boundary: str) -> None:
    """Tell whoever listens that this process is at `<step>: <boundary>`."""
    if _listener is not None:
        _listener(f"{step}: {boundary}")


def listen(listener: Callable[[str], None] | None) -> None:
    """Call `listener` at every boundary of this process; None: nobody listens."""
    global _listener  # noqa: PLW0603 - one per process
    _listener = listener
