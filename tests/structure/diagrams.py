"""The state diagrams of docs/architecture.md, drawn from `app.states`; run as a module it renews them."""

from pathlib import Path

from app import states
from app.states import Machine

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
BEGIN, END = "<!-- states -->\n", "<!-- /states -->\n"


def diagram(machine: Machine) -> str:
    """The machine as Mermaid, in the order of its enum."""
    lines = ["stateDiagram-v2", "classDef finished stroke-width:3px"]
    lines += [f"state {state.value!r} as {_name(state)}".replace("'", '"') for state in machine.states]
    lines += [f"[*] --> {_name(machine.start)}"]
    lines += [
        f"{_name(of)} --> {_name(to)}" for of in machine.states for to in machine.states if machine.allows(of, to)
    ]
    lines += [f"class {', '.join(_name(state) for state in machine.states if state in machine.finished)} finished"]
    return "\n".join((lines[0], *(f"    {line}" for line in lines[1:])))


def _name(state: str) -> str:
    return str(state).replace("-", "_")


def renewed(page: str) -> str:
    """The page with the diagrams between its markers as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise ValueError(f"{PAGE.name} lacks the markers {BEGIN.strip()} and {END.strip()}")
    parts = [f"### {kind}\n\n```mermaid\n{diagram(machine)}\n```\n" for kind, machine in states.MACHINES.items()]
    return "\n".join((f"{before}{BEGIN}", *parts, f"{END}{after}"))


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
