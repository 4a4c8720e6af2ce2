"""The Celery worker: its settings, the task modules, and the signals that start and stop a worker's life.

No Flask is imported here. Messages are JSON and hold ids only; there is no result backend; acknowledgement is late, and
the lease in Postgres, not Redis, decides who runs what.
"""

import os
import sys
import threading
from typing import Any

import prometheus_client
from celery import signals

from app import config, errors, logs, queue, remedies
from app.flows import products, replays, sweep, worker
from tasks import beat, bulkheads, reconnecting

try:
    app = queue.celery()
except errors.BadSettings as error:
    sys.exit(str(error))
reconnecting.install()
app.conf.update(
    worker_consumer="tasks.reconnecting:Consumer",
    worker_pool="tasks.bulkheads:Pool",
    worker_concurrency=len(queue.QUEUES) * config.settings().worker_concurrency,
    imports=[
        "tasks.claims",
        "tasks.declarations",
        "tasks.notifications",
        "tasks.vouchers",
        "tasks.declaration_jobs",
        "tasks.voucher_jobs",
        "tasks.sweeps",
    ],
    beat_schedule=beat.schedule(),
    timezone="UTC",
    task_acks_late=True,
    task_reject_on_worker_lost=False,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_connection_timeout=2.0,
    broker_transport_options={
        **app.conf.broker_transport_options,
        "socket_connect_timeout": 2.0,
        "socket_timeout": 10.0,  # above the blocking read of the consumer
        "queue_order_strategy": "tasks.bulkheads:OpenQueues",
        "polling_interval": bulkheads.LOOK_AGAIN_SECONDS,
        "visibility_timeout": 3_600,
    },
)


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    logs.configure(config.settings().log_level)


@signals.worker_init.connect
def _begin(**_: Any) -> None:
    remedies.or_exit(products.check)  # which is the only way for a signal's handler to be heard
    remedies.or_exit(worker.beat_if_possible)
    worker.start(sweep.sweep)  # a worker that starts while its broker is away works, too


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    threading.Thread(target=replays.at_start, name="replay", daemon=True).start()
    if config.settings().metrics_port:
        prometheus_client.start_http_server(config.settings().metrics_port)


@signals.worker_shutting_down.connect
def _stopping(**_: Any) -> None:
    """Take nothing new. What still runs after the soft limit is let go, in doubt where it is, and the process ends."""
    worker.stop_taking()
    timer = threading.Timer(config.settings().soft_shutdown_seconds, _out_of_time)
    timer.daemon = True
    timer.start()


def _out_of_time() -> None:
    try:
        worker.let_go()
    finally:
        os._exit(0)


@signals.worker_shutdown.connect
def _ended(**_: Any) -> None:
    worker.let_go()
