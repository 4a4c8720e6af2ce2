"""What importing does, and does not do."""

import sys

from tests.structure.conftest import ask, named, run, sources

MODULES_OF = """
import importlib, json, pkgutil, sys
for name in {folders!r}:
    for found in pkgutil.walk_packages([name], name + "."):
        importlib.import_module(found.name)
"""
TELL_MODULES = "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
NO_NETWORK = """
import sys
def deny(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork"}:
        raise SystemExit(f"{event} at import: {arguments}")
sys.addaudithook(deny)
"""


def test_a_worker_loads_no_flask(unreachable: dict[str, str]) -> None:
    program = "import json, sys, tasks.celery\ntasks.celery.app.loader.import_default_modules()\n" + TELL_MODULES
    loaded = ask(program, unreachable)
    assert {"celery", "tasks", "app"} <= set(loaded)
    assert not {"flask", "flask_openapi3", "werkzeug", "gunicorn"} & set(loaded)


def test_the_api_loads_no_task_modules(unreachable: dict[str, str]) -> None:
    loaded = ask("import json, sys, app.api\napp.api.create_app()\n" + TELL_MODULES, unreachable)
    assert "flask" in loaded
    assert "tasks" not in loaded


def test_importing_the_app_needs_no_environment_and_connects_to_nothing() -> None:
    program = NO_NETWORK + MODULES_OF.format(folders=["app"]) + TELL_MODULES
    assert "sqlalchemy" in ask(program, {})


def test_importing_the_tasks_connects_to_nothing(unreachable: dict[str, str]) -> None:
    program = NO_NETWORK + MODULES_OF.format(folders=["tasks"]) + TELL_MODULES
    assert "celery" in ask(program, unreachable)


def test_making_the_api_connects_to_nothing(unreachable: dict[str, str]) -> None:
    program = NO_NETWORK + "import app.api\napp.api.create_app()\nprint('[]')"
    assert ask(program, unreachable) == []


def test_a_connection_at_import_would_be_seen() -> None:
    told = run([sys.executable, "-c", NO_NETWORK + "import socket\nsocket.create_connection(('127.0.0.1', 1))"], {})
    assert told.returncode != 0
    assert "at import" in told.stderr


def test_init_files_are_empty_but_where_they_are_the_front_door() -> None:
    full = {named(path) for path in sources("app", "tasks", "local", "sandbox", "migrations") if path.stat().st_size}
    assert {name for name in full if name.endswith("__init__.py")} == {"app/api/__init__.py", "sandbox/__init__.py"}
