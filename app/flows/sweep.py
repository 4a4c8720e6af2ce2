"""The sweep: nothing unfinished is forgotten, whoever dropped it.

One at a time in the whole system: takes away what nobody tends, picks what is due, dispatches it. Where the broker is
out of reach it runs the rows itself.
"""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog

from app import boundaries, config, db, errors, metrics, queue
from app.db import Session
from app.flows import dispatch, engine, holding, lines, worker
from app.queue import Rank
from app.steps import Failure
from app.store import due, workflows
from app.store.due import Due, UnderWay, Wanted
from app.store.workflows import Seen
from app.upstreams.http import Pace

POISONED_AFTER_CRASHES = 3

log = structlog.get_logger("sweep")
_running: defaultdict[str, set["Future[None]"]] = defaultdict(set)  # by kind


def sweep() -> bool:
    """One round. Does nothing while another process sweeps. True: more is due and could go soon."""
    if not _take_away():
        return False
    with db.transaction() as session:
        if not due.only_one_sweeps(session):
            return False
        try:
            room, broker = queue.room(), True
        except errors.BrokerAway:
            room, broker = _threads_free(), False
        paces = {kind: flow.pace() for kind, flow in lines.FLOWS.items()}
        under_way = due.under_way(session)
        wanted = [
            _wanted(
                kind, priority, free, paces[kind], under_way.get(kind, UnderWay()),
                queued=queue.MOST_WAITING - room[kind, 1] if broker else 0,
            )
            for (kind, priority), free in room.items()
        ]  # fmt: skip
        picked = due.pick_due(session, wanted, again=config.settings().redispatch_seconds)
        boundaries.reach("sweep", boundaries.WRITTEN)
    boundaries.reach("sweep", boundaries.COMMITTED)
    if picked:
        log.info("sweep.due", count=len(picked))
        _deliver(picked, broker=broker)
    went = Counter((one.kind, one.priority) for one in picked)
    full = [one for one in wanted if went[one.kind, one.priority] >= one.most]
    if broker:
        waiting = {one.kind: queue.UPSTREAM if one.most < one.room else queue.FULL for one in full if one.priority}
        queue.tell_backlog(waiting, seconds=2 * config.settings().sweep_seconds)
    return any(paces[one.kind].calls > 0 and not one.probing for one in full)


def _take_away() -> bool:
    """Free what nobody tends. False: another process sweeps."""
    settings = config.settings()
    dead, gone = settings.lease_dead_seconds, 2 * settings.lease_heartbeat_seconds
    with db.transaction() as session:
        if not due.only_one_sweeps(session):
            return False
        # After a gap of our own, such as a restart of Postgres, everybody has been silent: that is no death.
        taken = due.take_away(session, dead=dead if worker.pulse.seconds() >= dead else math.inf, gone=gone)
        for seen, died in taken:
            _taken_away(session, seen, died=died)
        boundaries.reach("sweep", boundaries.WRITTEN)
    for seen, died in taken:
        if died and seen.crashes >= POISONED_AFTER_CRASHES:
            _fail(seen)
            worker.gets_on()
    return True


def _wanted(kind: str, priority: int, free: int, pace: Pace, under_way: UnderWay, *, queued: int) -> Wanted:
    """What somebody waits for goes at once; of the rest as many as there is room for, and as the upstream takes."""
    most = free
    probing = bool(priority) and pace.probing
    if probing:
        most = int(min(free, pace.calls))
    elif priority:
        before_their_call = under_way.held - under_way.calling + queued
        most = int(min(free, pace.calls - before_their_call, pace.at_once - under_way.held - queued))
    entry = lines.FLOWS[kind].steps[0].of
    return Wanted(kind=kind, priority=priority, entry=entry, room=free, most=max(most, 0), probing=probing)


def _deliver(picked: Sequence[Due], *, broker: bool) -> None:
    """Enqueue what is due; without a broker run it here, in threads."""
    for place, one in enumerate(picked):
        try:
            if not broker:
                raise errors.BrokerAway("not reachable")
            dispatch.send(one.kind, one.state, one.id, _rank(one))
        except errors.BrokerAway:
            _run_here(picked[place:])
            return


def _rank(one: Due) -> Rank:
    if one.priority == 0:
        return Rank.WAITED_FOR
    if not one.new:
        return Rank.BEGUN
    return Rank.NEXT if one.first else Rank.NEW


def _run_here(picked: Sequence[Due]) -> None:
    log.warning("sweep.broker-away", running_here=len(picked))
    metrics.engine_dispatch_failures.inc()
    for one in picked:
        future = _pool(one.kind).submit(engine.run, one.id)
        _running[one.kind].add(future)
        future.add_done_callback(partial(_ran, one.kind))


def _ran(kind: str, future: "Future[None]") -> None:
    _running[kind].discard(future)
    if error := future.exception():
        log.warning("sweep.run-failed", error=type(error).__name__)


def _threads_free() -> queue.Room:
    """How many rows of each kind may be run here."""
    most = config.settings().worker_concurrency
    return {(kind, priority): most - len(_running[kind]) for kind in lines.FLOWS for priority in (0, 1)}


@functools.cache
def _pool(kind: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(config.settings().worker_concurrency, thread_name_prefix=f"sweep-{kind}")


def _taken_away(session: Session, seen: Seen, *, died: bool) -> None:
    metrics.engine_taken_away.labels("died" if died else "expired").inc()
    log.warning("sweep.taken-away", workflow=str(seen.id), kind=seen.kind, state=seen.state, died=died)
    workflows.add_event(session, seen.id, "holder died" if died else "lease ran out", actor="sweep")


def _fail(seen: Seen) -> None:
    """Fail the row whose holders kept dying, in a transaction of its own: it may have to wait for the line's lock."""
    try:
        with db.transaction() as session:
            _poisoned(session, seen)
    except Exception:  # one row that cannot even be failed must not stop the sweep of all others
        log.exception("sweep.poisoned-stuck", workflow=str(seen.id))


def _poisoned(session: Session, seen: Seen) -> None:
    """The third death in the same step: the row fails, and its doubt stays with it."""
    flow = lines.FLOWS[seen.kind]
    step = flow.step_in(seen.state)
    message = "The worker died three times running in this step."
    if seen.in_doubt:
        message += " It is not known whether the last call took effect."
    failure = Failure(code="crashed", http_status=502, message=message)
    record = flow.load(session, seen.id)
    flow.lock(session, record)
    ending = flow.failed(record, failure)
    columns: dict[str, Any] = (
        {}
        if flow.is_undoing(seen.state)
        else {"error": holding.error_object(step.name if step else "", failure, attempt=seen.attempt)}
    )
    failed = workflows.move(
        session, seen, ending.state, actor="sweep", reason="crashed",
        crashes=0,
        attempt=0 if flow.is_undoing(ending.state) else seen.attempt, deadline=ending.deadline, **columns,
        release=worker.release(),
    )  # fmt: skip
    if not failed:  # somebody was faster
        return
    workflows.save(session, flow.table, seen.id, ending.values)
    for name, value in ending.values.items():
        setattr(record, name, value)
    dispatch.follow_up(session, seen.kind, record, ending.state)
    metrics.engine_poisoned.labels(seen.kind).inc()
    log.error("sweep.poisoned", workflow=str(seen.id), kind=seen.kind, in_doubt=seen.in_doubt)
