"""What a traveller says of themselves stays in sealed columns and in answers to their client. Contract, section 7."""

import io
import json
from types import SimpleNamespace
from typing import Any

from sqlalchemy import literal_column, select

from app import db, logs, metrics
from app.models.orm import Table
from tests.api.declaration_factories import Passengers, start_numbers_at
from tests.declaration_payloads import R, payload

CANARIES = ["Kanarienvogel", "KNR4711X", "kanari@example.org", "Kanarstadt"]
PERSONAL = {
    f"{R}/personalDetails": {"firstName": "Kanarienvogel", "lastName": "Kanarienvogel"},
    f"{R}/customerReference/idValue": "KNR4711X",
    f"{R}/contactDetails/emailAddress": "kanari@example.org",
    f"{R}/declarationHeader/portOfEntry": "Kanarstadt",
}


def requests(passengers: Passengers) -> list[str]:
    """A declaration's life as far as this API goes, and bodies with a fault in every value. The refusals' texts."""
    reference = passengers.submit(payload(**PERSONAL), Idempotency_Key="k").json["_id"]
    passengers.submit(payload(**PERSONAL), Idempotency_Key="k")
    for _ in range(2):
        passengers.update(reference, data="Kanarienvogel")
    passengers.show(reference, "?include=data")
    faulty = [
        payload(**{**PERSONAL, pointer: value})
        for pointer in PERSONAL
        for value in ("Kanarienvogel" * 20, ["Kanarienvogel"], {"x": "Kanarienvogel"})
    ]
    refused = [passengers.submit(document).text for document in faulty]
    refused.append(passengers.submit(data=json.dumps(payload(**PERSONAL))[:-3]).text)
    refused.append(passengers.show(reference, "?include=Kanarienvogel").text)
    start_numbers_at(int(reference[4:]))  # so that Postgres refuses the next one
    failed = passengers.submit(payload(**PERSONAL))
    assert failed.status_code == 500
    refused.append(failed.text)
    return refused


def test_personal_data_are_in_no_log_no_refusal_no_metric_and_no_plain_column(
    passengers: Passengers, monkeypatch
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stdout=written))
    logs.configure()
    refused = requests(passengers)
    places: dict[str, Any] = {
        "refusals": "\n".join(refused),
        "logs": written.getvalue(),
        "metrics": metrics.render()[0].decode(),
        "columns": _columns(),
    }
    found = [(place, word) for place, told in places.items() for word in CANARIES if word in told]
    assert found == []
    assert '"event": "accepted"' in places["logs"]
    assert "UniqueViolation" in places["logs"]
    assert "payment-repeated" in places["columns"]


def _columns() -> str:
    """Every row of every table as Postgres shows it."""
    with db.transaction() as session:
        return "\n".join(
            str(row[0])
            for table in Table.metadata.sorted_tables
            for row in session.execute(select(literal_column("t::text")).select_from(table.alias("t")))
        )
