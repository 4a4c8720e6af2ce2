"""Rules that the source keeps to and no tool knows."""

import ast
import inspect
import re
import shlex

import pytest

from app import errors
from tests.structure.conftest import OURS, ROOT, named, run, sources, tree

PROCESSES = ("release", "web", "worker", "beat", "flower")
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
HARMLESS = {name: "--check-config" if name == "web" else "--help" for name in PROCESSES}


def test_every_module_says_in_a_sentence_what_it_is() -> None:
    modules = [*sources(*OURS), ROOT / "gunicorn.conf.py"]
    silent = [named(path) for path in modules if path.stat().st_size and not ast.get_docstring(tree(path))]
    assert silent == []


def test_the_drawn_tree_of_errors_is_the_tree_of_classes() -> None:
    drawn: list[tuple[str, str]] = []
    branch = [errors.Throughline.__name__]
    for line in inspect.getdoc(errors).split(f"{branch[0]}\n", 1)[1].splitlines():  # type: ignore[union-attr]
        found = re.match(r"((?:│   |    )*)[├└]── (\w+) +\S", line)
        assert found, line
        depth = len(found[1]) // 4 + 1
        branch[depth:] = [found[2]]
        drawn.append((branch[depth - 1], found[2]))
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__]
    real = {(one.__base__.__name__, one.__name__) for one in classes if one is not errors.Throughline}  # type: ignore[union-attr]
    assert set(drawn) == real
    assert len(drawn) == len(real)
    assert not [one.__name__ for one in classes if one.__name__.endswith(("Exception", "Error"))]


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        named(path)
        for path in sources("app", "tasks")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and ast.unparse(node.value) == "os"
    }
    assert readers == {"app/config.py"}


def test_the_processes_are_those_that_are_documented_and_each_becomes_its_program() -> None:
    assert tuple(PROCFILE) == PROCESSES
    assert [name for name, command in PROCFILE.items() if "exec " not in command] == []


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_can_be_started(name: str, unreachable: dict[str, str]) -> None:
    """The program is there and takes these options; asked for no more than that, it starts nothing."""
    environment = {**unreachable, "FLOWER_BASIC_AUTH": "user:password"}
    told = run(["sh", "-c", f"{PROCFILE[name]} {HARMLESS[name]}"], environment)
    assert told.returncode == 0, told.stderr[-2_000:]


@pytest.mark.parametrize("name", ["worker", "web"])
def test_an_option_that_is_none_would_be_seen(name: str, unreachable: dict[str, str]) -> None:
    told = run(["sh", "-c", f"{PROCFILE[name]} --no-such-option {HARMLESS[name]}"], unreachable)
    assert told.returncode != 0


@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "WEB_THREADS", "PORT", "HOST"])
def test_an_empty_variable_of_web_counts_as_absent(variable: str, unreachable: dict[str, str]) -> None:
    told = run(["sh", "-c", f"{PROCFILE['web']} --print-config"], {**unreachable, variable: ""})
    assert told.returncode == 0, told.stderr[-2_000:]
    shown = dict(re.findall(r"^(\w+) +[:=] +(.*)$", told.stdout, flags=re.MULTILINE))
    assert (shown["workers"], shown["threads"], shown["bind"]) == ("2", "64", "['0.0.0.0:8000']")


@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "WEB_THREADS", "PORT"])
def test_a_variable_of_web_that_is_no_number_is_named(variable: str, unreachable: dict[str, str]) -> None:
    told = run(["sh", "-c", f"{PROCFILE['web']} --check-config"], {**unreachable, variable: "many"})
    assert told.returncode != 0
    assert variable in told.stderr.splitlines()[-1]
    assert "Traceback" not in told.stderr


def test_flower_does_not_start_without_a_password(unreachable: dict[str, str]) -> None:
    told = run(["sh", "-c", f"{PROCFILE['flower']} --help"], unreachable)
    assert told.returncode != 0
    assert "FLOWER_BASIC_AUTH" in told.stderr


def test_a_process_can_be_run_by_its_name_alone(unreachable: dict[str, str]) -> None:
    told = run(["local/run", "nothing"], unreachable)
    assert told.returncode == 2
    assert shlex.split(told.stderr)[-1] == "|".join(PROCESSES)
