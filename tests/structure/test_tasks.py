"""Celery tasks: one per step under its explicit name, nothing that waits in the broker, a schedule without holes."""

import ast
from typing import Any

import pytest

from app.flows import lines
from app.models.orm import new_id
from tests.structure.conftest import ask, named, sources, tree

STEPS = {(kind, f"{flow.line}.{step.name}") for kind, flow in lines.FLOWS.items() for step in flow.steps}
# What the worker registers, what beat sends, and which step of which kind each task really runs.
PROGRAM = f"""
import json, tasks.celery
from app.flows import engine
app = tasks.celery.app
app.loader.import_default_modules()
ours = sorted(name for name in app.tasks if not name.startswith("celery."))
ran = []
engine.perform = lambda kind, step, workflow_id: ran.append((kind, step, str(workflow_id)))
performed = {{}}
for name in ours:
    if not name.startswith("sweeps."):
        app.tasks[name].run({str(new_id())!r})
        performed[name] = ran.pop()
schedule = {{name: entry["task"] for name, entry in app.conf.beat_schedule.items()}}
options = {{name: getattr(app.conf, name) for name in (
    "task_acks_late", "task_ignore_result", "accept_content", "task_serializer", "result_backend",
    "task_create_missing_queues", "worker_prefetch_multiplier", "task_reject_on_worker_lost",
)}}
print(json.dumps({{"tasks": ours, "performed": performed, "schedule": schedule, "options": options}}))
"""


@pytest.fixture(scope="module")
def worker(unreachable: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = ask(PROGRAM, unreachable)
    return told


def test_each_step_of_each_flow_has_its_task_and_each_task_its_step(worker: dict[str, Any]) -> None:
    tasks = {name for name in worker["tasks"] if not name.startswith("sweeps.")}
    assert tasks == {name for _, name in STEPS}


def test_each_task_runs_the_step_it_is_named_for_on_workflows_of_its_kind(worker: dict[str, Any]) -> None:
    assert {(kind, name) for name, (kind, step, _) in worker["performed"].items() if name.endswith(f".{step}")} == STEPS


def test_names_of_steps_tell_their_line_and_are_given_once() -> None:
    assert len({name for _, name in STEPS}) == len(STEPS)


def test_the_tasks_are_registered_in_the_order_of_the_steps() -> None:
    """A reader of the task module sees the steps in the order in which they are chained."""
    order = [
        call.args[1].value
        for path in sources("tasks")
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "step"
        if isinstance(call.args[1], ast.Constant)
    ]
    for flow in lines.FLOWS.values():
        names = [f"{flow.line}.{step.name}" for step in flow.steps]
        assert [name for name in order if name in names] == names


def test_every_entry_of_the_schedule_is_a_registered_task(worker: dict[str, Any]) -> None:
    assert worker["schedule"]
    assert set(worker["schedule"].values()) <= set(worker["tasks"])


def test_every_calendar_job_is_in_the_schedule(worker: dict[str, Any]) -> None:
    jobs = {name for name in worker["tasks"] if name.startswith("sweeps.")}
    assert jobs == set(worker["schedule"].values())


def test_every_line_of_the_schedule_has_a_reason_above_it() -> None:
    path = next(path for path in sources("tasks") if path.name == "beat.py")
    text = path.read_text().splitlines()
    entries = [place for place, line in enumerate(text) if '"schedule":' in line]
    assert entries
    assert [text[place] for place in entries if not text[place - 1].strip().startswith("# ")] == []


def test_messages_are_json_acknowledged_late_and_leave_no_result(worker: dict[str, Any]) -> None:
    assert worker["options"] == {
        "task_acks_late": True,
        "task_ignore_result": True,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_backend": None,
        "task_create_missing_queues": False,
        "worker_prefetch_multiplier": 1,
        "task_reject_on_worker_lost": False,
    }


def test_every_task_has_an_explicit_name() -> None:
    nameless = []
    for path in sources("app", "tasks"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    call = decorator if isinstance(decorator, ast.Call) else None
                    function = call.func if call else decorator
                    is_task = isinstance(function, ast.Attribute) and function.attr == "task"
                    if is_task and not (call and any(word.arg == "name" for word in call.keywords)):
                        nameless.append(f"{named(path)}:{node.lineno}")
    assert nameless == []


WAITS_IN_THE_BROKER = {"countdown", "eta", "autoretry_for", "default_retry_delay", "retry_backoff"}


def waits_in_the_broker(source: ast.Module) -> list[int]:
    """The lines that leave a wait to Celery."""
    lines_ = [node.lineno for node in ast.walk(source) if isinstance(node, ast.Call) and _asks_to_wait(node)]
    return lines_ + [
        key.lineno for node in ast.walk(source) if isinstance(node, ast.Dict) for key in node.keys if _is(key)
    ]


def _asks_to_wait(call: ast.Call) -> bool:
    retries = isinstance(call.func, ast.Attribute) and call.func.attr in {"retry", "set_eta"}
    of_self = retries and isinstance(call.func.value, ast.Name) and call.func.value.id in {"self", "task"}  # type: ignore[attr-defined]
    return of_self or any(word.arg in WAITS_IN_THE_BROKER for word in call.keywords)


def _is(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and key.value in WAITS_IN_THE_BROKER


def test_nothing_waits_in_the_broker() -> None:
    found = {named(path): waits_in_the_broker(tree(path)) for path in sources("app", "tasks")}
    assert {name: at for name, at in found.items() if at} == {}


@pytest.mark.parametrize(
    "line",
    ["task.apply_async(countdown=5)", "signature('x', eta=then)", "self.retry()", "send(**{'countdown': 5})",
     "app.task(autoretry_for=(OSError,))"],
)  # fmt: skip
def test_a_wait_in_the_broker_would_be_seen(line: str) -> None:
    assert waits_in_the_broker(ast.parse(line)) == [1]
