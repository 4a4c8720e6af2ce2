"""How gunicorn serves the API: a few processes with many threads, for requests wait on the database or on a claim."""

import sys
from typing import Any

from prometheus_client import multiprocess

from app import db, errors, remedies
from app.config import settings
from app.flows import products

try:
    wanted = settings()
except errors.BadSettings as error:
    sys.exit(str(error))

bind = f"{wanted.host}:{wanted.port}"
worker_class = "gthread"
workers = wanted.web_concurrency  # gunicorn reads the variable, too, before this: the Procfile keeps nonsense from it
threads = wanted.web_threads
timeout = 60
graceful_timeout = 30  # above the longest wait that `Prefer: wait` allows
keepalive = 75  # above the idle time of usual load balancers, which otherwise hit connections being closed
forwarder_headers = ""  # no header of a request changes the path it asks for
control_socket_disable = True  # it would lie in the home folder, shared by every gunicorn of this user


def on_starting(_server: Any) -> None:
    """Refuse to start, in one message, before any worker is there: a variable is missing, or the schema is."""
    remedies.or_exit(products.check)
    db.close()  # no connection of ours is to be shared with the workers


def child_exit(_server: Any, worker: Any) -> None:
    """Take a dead process's gauges out of the sum."""
    if wanted.prometheus_multiproc_dir:
        multiprocess.mark_process_dead(worker.pid)
