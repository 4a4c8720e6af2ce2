"""Declarations for tests of what happens in the background: rows as the API and the engine leave them."""

import copy
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update

from app import db, states
from app.models.declaration import Declaration
from app.models.workflow import Move, Release, Workflow
from app.store import clients, declarations, workflows

S = states.Declaration
NAMES = ("Sample", "Traveller", "SAMPLE0001", "traveller@example.org")  # what is personal in the payload
PAYLOAD: dict[str, Any] = {
    "simpleDeclarationRequest": {
        "requestCommon": {
            "receiptDate": "2026-11-20T18:05:00Z",
            "requestParameters": [{"paramName": "REGIME", "paramValue": "PNGR"}],
        },
        "requestDetail": {
            "customerReference": {"idType": "passport", "idValue": "SAMPLE0001", "ukResident": True},
            "personalDetails": {"firstName": "Sample", "lastName": "Traveller"},
            "contactDetails": {"emailAddress": "traveller@example.org"},
            "declarationHeader": {
                "messageTypes": {"messageType": "DeclarationCreate"},
                "portOfEntry": "LHR",
                "portOfEntryName": "Heathrow Airport",
                "travellingFrom": "NON_EU Only",
                "onwardTravelGBNI": "GB",
                "uccRelief": False,
                "ukVATPaid": False,
                "ukExcisePaid": False,
            },
            "declarationTobacco": {
                "totalExciseTobacco": "62.30",
                "declarationItemTobacco": [
                    {
                        "commodityDescription": "Zigarren für Üwe",
                        "valueCurrency": "USD",
                        "valueCurrencyName": "US dollars (USD)",
                        "originCountry": "US",
                        "originCountryName": "United States of America",
                    }
                ],
            },
            "liabilityDetails": {"grandTotalGBP": "277.10"},
        },
    }
}


def client(name: str = "passengers") -> UUID:
    """The id of the client of this name; added when there is none."""
    with db.transaction() as session:
        try:
            return clients.named(session, name).id
        except LookupError:
            clients.add(session, name, ["declarations"])
            return clients.named(session, name).id


def declared(state: str = S.PAID, *, of: str = "passengers", age: float = 0, **columns: Any) -> UUID:
    """A declaration that came into this state so many seconds ago; `columns` are of either of its tables."""
    client_id = client(of)
    with db.transaction() as session:
        made = declarations.accept(session, client_id, copy.deepcopy(PAYLOAD), "corr-1")
    then = func.clock_timestamp() - timedelta(seconds=age)
    machine = states.DECLARATION
    values: dict[str, Any] = {"state": state, "updated_at": then}
    if machine.is_finished(state):
        values |= {"due_at": None, "wake_at": None, "finished_at": then}
    elif not machine.waits_in(state):
        values |= {"due_at": then, "wake_at": then}
    own = Declaration.__table__.c.keys()
    values |= {name: value for name, value in columns.items() if name not in own}
    paid = {} if state in states.UNPAID or state == S.EXPIRED else {"paid_at": then}
    with db.transaction() as session:
        session.execute(update(Workflow.__table__).where(Workflow.__table__.c.id == made.id).values(**values))
        mine = paid | {name: value for name, value in columns.items() if name in own}
        workflows.save(session, Declaration, made.id, mine)
    return made.id


def failed(*, release: str = "2026.11.1", error: str = "mdg-400", **more: Any) -> UUID:
    """One that failed under this release, which is known."""
    known(release)
    return declared(S.FAILED, release=release, error={"code": error}, **more)


def known(release: str) -> None:
    """A release that was first seen at least now, and after all that are known."""
    with db.transaction() as session:
        if session.scalar(select(Release.name).where(Release.name == release)) is None:
            session.execute(insert(Release).values(name=release))


def got(declaration_id: UUID) -> Declaration:
    with db.transaction() as session:
        return declarations.load(session, declaration_id)


def history(declaration_id: UUID) -> list[tuple[str | None, str | None, str, str]]:
    with db.transaction() as session:
        rows = session.scalars(select(Move).where(Move.workflow_id == declaration_id).order_by(Move.id))
        return [(row.of, row.to, row.actor, row.reason) for row in rows]


def events(declaration_id: UUID) -> list[str]:
    """The timeline but for its first entry, by reason."""
    return [reason for _, _, _, reason in history(declaration_id)[1:]]
