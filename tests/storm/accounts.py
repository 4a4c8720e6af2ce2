"""What an account of one line is: what was accepted, what became of it, what the upstream shows, and what is wrong.

Effects are compared with the rows, one for one, and not with numbers: the upstream's ids and references are those that
the rows know. A claim that was undone, a declaration that was refused, a replacement that the day rule forbids: each is
right exactly when the upstream shows what its row says.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
DUPLICATE, MISSING, ORPHAN, IN_DOUBT = "duplicates", "missing", "orphans", "in doubt"
WRONGS = (DUPLICATE, MISSING, ORPHAN, IN_DOUBT)
WORKFLOWS = """
    SELECT id, state, correlation_id, in_doubt, finished_at, error, coalesce(deaths, 0) AS deaths,
           coalesce(crashed, false) AS crashed
    FROM workflows LEFT JOIN (
        SELECT workflow_id AS id, count(*) FILTER (WHERE reason = 'holder died') AS deaths,
               bool_or(reason = 'crashed') AS crashed
        FROM moves WHERE reason IN ('holder died', 'crashed') GROUP BY workflow_id
    ) died USING (id)
"""
DEATHS = 3  # in a row, in one step: then a workflow is given up
# Why one may stay in doubt:
LOST_SENDS, DIED, REFUSED_IN_DOUBT = "limit of lost sends", "third death in a row", "refused after a lost call"


@dataclass(frozen=True)
class Wrong:
    """One thing that is not as it must be. `workflow`: its id, or what is known of it; `rows`: whose timelines tell."""

    kind: str
    workflow: str
    says: str
    rows: tuple[str, ...] = ()


@dataclass
class Account:
    """One line's account. `effects`: by kind, those that happened and still stand; `rows` says the same of the rows.

    `given_up`: those in doubt for a reason that allows it, and the reason.
    """

    line: str
    accepted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    given_up: dict[str, str] = field(default_factory=dict)
    wrong: list[Wrong] = field(default_factory=list)

    def add(self, kind: str, workflow: object, says: str) -> None:
        self.wrong.append(Wrong(kind, str(workflow), says))

    def give_up(self, row: Row, why: str) -> None:
        self.given_up[str(row["id"])] = why

    def number(self, kind: str) -> int:
        return sum(one.kind == kind for one in self.wrong)

    def counted(self, what: str, workflow: object, *, found: int, expected: int) -> None:
        """So many effects of one thing where the rows say `expected`."""
        self.effects[what] += found
        self.rows[what] += expected
        if found > expected:
            self.add(DUPLICATE if expected else ORPHAN, workflow, f"{found} {what}, {expected} accounted for")
        if found < expected:
            self.add(MISSING, workflow, f"{found} {what}, {expected} accounted for")

    def matched(self, what: str, workflow: object, *, found: Iterable[str], known: Iterable[str]) -> None:
        """The upstream shows exactly the things of these ids that the row knows."""
        standing, ours = set(found), set(known)
        self.effects[what] += len(standing)
        self.rows[what] += len(ours)
        for one in sorted(ours - standing):
            self.add(MISSING, workflow, f"{what}: the row knows {one}, the upstream does not")
        for one in sorted(standing - ours):
            kind = DUPLICATE if ours else ORPHAN
            self.add(kind, workflow, f"{what}: the upstream has {one}, the row does not know it")


def only_row(account: Account, rows: Sequence[Row], *, accepted: bool, name: str) -> Row | None:
    """The row of one request, which has one exactly when it was accepted; counts its state and what is unfinished."""
    account.accepted += accepted
    account.states.update(row["state"] for row in rows)
    if accepted and not rows:
        account.add(MISSING, name, "accepted, and there is no row")
    for row in rows[1:]:
        account.add(DUPLICATE, row["id"], f"another row of the one request {name}")
    return rows[0] if rows else None


def was_given_up(row: Row) -> bool:
    """Its holders died three times running, and its timeline says so (the error may be an earlier one)."""
    return bool(row["crashed"]) and row["deaths"] >= DEATHS


def by(rows: Iterable[Row], name: str) -> dict[Any, list[Row]]:
    """The rows by the value of one column, in their order."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found
