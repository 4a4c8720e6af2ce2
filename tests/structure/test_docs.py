"""The documentation keeps up with the code: diagrams, variables, and every name that it names."""

import itertools
import re
from typing import Any

import pytest
from click import Group
from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo

from app import config, metrics
from app.cli import main
from tests.structure import diagrams
from tests.structure.conftest import ROOT, named, sources

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
GROUPS = (
    config.Settings,
    config.TravelPay,
    config.TravelClaims,
    config.Notify,
    config.Mdg,
    config.Declarations,
    config.Imovo,
    config.Vouchers,
)
EXAMPLE = "parcels"  # the line of business that docs/add-a-line.md makes up


def words(page: str) -> list[str]:
    """What stands in backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))


def expanded(name: str) -> list[str]:
    """`A_{B,C}` is A_B and A_C."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def documented() -> dict[str, str]:
    """Every variable of the tables with its default."""
    rows = re.findall(r"^\| `([A-Z_{},]+)` \| (.*?) \| .*\|$", CONFIGURATION, flags=re.MULTILINE)
    names = [name for row, _ in rows for name in expanded(row)]
    assert len(names) == len(set(names)), "a variable stands there twice"
    return {name: default for row, default in rows for name in expanded(row)}


def shown(field: FieldInfo) -> str:
    """A default as the tables show it."""
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ",".join(f"{name}={one}" for name, one in value.items())
    return str(value) if value not in (None, "", frozenset()) else "-"


def settings() -> dict[str, str]:
    """Every variable that the settings read, with its default."""
    lines = {"travel_pay", "travel_claims", "notify", "mdg", "declarations", "imovo", "vouchers"}
    return {
        f"{group.model_config.get('env_prefix') or ''}{name}".upper(): shown(field)
        for group in GROUPS
        for name, field in group.model_fields.items()
        if not (group is config.Settings and name in lines)
    }


def of_the_processes() -> set[str]:
    """The variables that the Procfile reads by itself."""
    return set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "Procfile").read_text()))


@pytest.mark.parametrize("variable", sorted(settings()))
def test_every_setting_is_documented_with_its_default(variable: str) -> None:
    assert documented().get(variable) == settings()[variable]


def test_every_variable_of_the_processes_is_documented_and_none_besides() -> None:
    assert of_the_processes() >= {"FLOWER_BASIC_AUTH", "FLOWER_PORT"}
    assert documented().keys() == settings().keys() | of_the_processes()


def test_the_state_diagrams_are_current() -> None:
    page = diagrams.PAGE.read_text()
    assert page == diagrams.renewed(page), "run: python -m tests.structure.diagrams"


def test_a_diagram_shows_every_state_and_every_move() -> None:
    for machine in diagrams.states.MACHINES.values():
        drawn = diagrams.diagram(machine).splitlines()
        moves = sum(len(targets) for targets in machine.moves.values())
        assert sum(" --> " in line for line in drawn) == moves + 1
        assert sum(line.strip().startswith("state ") for line in drawn) == len(machine.states)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Any) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        headings = [
            line.lstrip("# ").lower().replace(" ", "-") for line in found.read_text().splitlines() if line[:1] == "#"
        ]
        assert not heading or heading in headings, target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_is_named_is_there(page: Any) -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[:1] not in "._"}
    paths = {word for word in words(page.read_text()) if "/" in word and word.partition("/")[0] in folders}
    made = {path for path in paths if EXAMPLE in path or path.startswith("var/")}
    assert [path for path in sorted(paths - made) if not (ROOT / path.split("::")[0].split()[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_that_is_named_exists(page: Any) -> None:
    for command in (word.split()[1:] for word in words(page.read_text()) if word.startswith("throughline ")):
        at: Any = main
        while command and isinstance(at, Group):
            assert command[0] in at.commands, command
            at = at.commands[command.pop(0)]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_metric_that_is_named_exists(page: Any) -> None:
    exist = {
        name
        for one in vars(metrics).values()
        if isinstance(one, MetricWrapperBase)
        for family in one.describe()
        for name in (family.name, f"{family.name}_total")
    }
    prefixes = ("claims_", "engine_", "upstream_", "http_", "redis_", "silent_")
    told = {word.partition("{")[0] for word in words(page.read_text()) if word.startswith(prefixes)}
    assert told - exist == set()


def test_every_log_event_of_the_runbook_is_one() -> None:
    code = "".join(path.read_text() for path in sources("app", "tasks"))
    events = {
        word
        for word in words((ROOT / "docs" / "runbook.md").read_text())
        if re.fullmatch(r"(http|worker|sweep|sweeps|engine|dispatch|tasks|start|claims)\.[a-z-]+", word)
    }
    assert len(events) >= 8
    assert [event for event in sorted(events) if f'"{event}"' not in code] == []


def test_every_alarm_is_about_a_metric_that_something_counts() -> None:
    alarms = (ROOT / "docs" / "runbook.md").read_text().split("## Worth an alarm")[1]
    code = "".join(path.read_text() for path in sources("app") if path.name != "metrics.py")
    names = {word.removesuffix("_total") for word in re.findall(r"^\| `(\w+)`", alarms, flags=re.MULTILINE)}
    assert names
    assert [name for name in sorted(names) if f"metrics.{name}." not in code] == []
