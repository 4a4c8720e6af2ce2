"""A warm parent: one thread, everything imported, nothing connected. For each order it forks a worker process.

Orders and answers are lines of JSON on standard input and output. A worker carries one workflow to its end, or sweeps
once where the order names none, and counts the boundaries that it reaches; at the one it was told it kills itself
(SIGKILL) or stops (SIGSTOP), as a machine that loses power or a process that is paused would, and nothing of its memory
is saved.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from psycopg import Connection
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

from app import boundaries, config
from app.flows import sweep, work, worker
from tests.crash.carrying import carry

connections: list[Connection[Any]] = []  # of this worker, to Postgres
SIGNALS = {"die": signal.SIGKILL, "stall": signal.SIGSTOP}
SEND_WITHIN_SECONDS = 0.15  # so that a stall outlasts these limits soon
IDLE_MILLISECONDS = 400


def listener(at: int | str | None, how: str, seen: list[str]) -> Callable[[str], None]:
    """Note every boundary; at number `at` (from 0), or at the first that ends so, send this process the signal."""

    def reached(boundary: str) -> None:
        seen.append(boundary)
        if boundary.endswith(at) if isinstance(at, str) else at is not None and len(seen) == at + 1:
            tell({"reached": seen})
            work.SEND_WITHIN_SECONDS = SEND_WITHIN_SECONDS
            end_idle_transactions_soon()
            os.kill(os.getpid(), SIGNALS[how])

    return reached


def end_idle_transactions_soon() -> None:
    """Not before the stall: on a busy machine a worker that is well may be idle for as long."""
    for one in connections:
        if one.info.transaction_status == TransactionStatus.INTRANS:
            one.execute(f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}".encode())


def tell(answer: dict[str, Any]) -> None:
    os.write(1, (json.dumps(answer) + "\n").encode())


def be_a_worker(order: dict[str, Any]) -> None:
    seen: list[str] = []
    os.environ.update(order["settings"])
    config.settings.cache_clear()
    event.listen(Engine, "connect", lambda connection, _: connections.append(connection))
    worker.beat()
    worker.pulse.seconds = lambda: math.inf  # as if it had been heard all along
    boundaries.listen(listener(order["at"], order["how"], seen))
    if order["workflow"] is None:
        sweep.sweep()
    else:
        carry(UUID(order["workflow"]))
    tell({"reached": seen})


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    stalled: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        if order == "go on":
            go_on(stalled)
            continue
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                be_a_worker(order)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, os.WUNTRACED)
        tell({"status": status})
        if os.WIFSTOPPED(status):
            stalled.append(pid)


def go_on(stalled: list[int]) -> None:
    """Wake those that stall, one after the other, and wait until each has ended."""
    for pid in stalled:
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)
    stalled.clear()
    tell({"went on": True})


if __name__ == "__main__":
    main()
