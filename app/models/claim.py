"""Travel claims. What is personal is sealed; the visit is found by its keyed hash."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, false
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.crypto import Encrypted
from app.models.workflow import Workflow


class Claim(Workflow):
    """A claim workflow's own columns.

    `visit` is the keyed hash of client, ICN, station and wall-clock time. `appointment` holds dateTime, stationNumber,
    type and complete as accepted; its name is sealed. `expenses` is the progress per expense: `type, state, expenseId`,
    `doubted` where a call of it was ever in doubt; `expense_details`, sealed, is what was asked for. `undo` is what a
    rollback has done so far. `failed_in` is the state in which the claim failed. `claim_made`: the upstream claim was
    made by this workflow; `adopt_expenses`: it may hold expenses that are to be matched first; `create_doubted`: a
    create of this workflow was once in doubt; `told`: the veteran was told of an earlier run, and is not told again.
    `callback_wanted` stays when the URL is erased.
    """

    __tablename__ = "claims"
    __mapper_args__ = {"polymorphic_identity": "claim"}
    __allow_unmapped__ = True

    id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), primary_key=True)
    run: Mapped[int] = mapped_column(default=1)
    product: Mapped[str]
    visit: Mapped[str]
    icn: Mapped[str | None] = mapped_column(Encrypted)
    phone: Mapped[str | None] = mapped_column(Encrypted)
    appointment: Mapped[dict[str, Any]] = mapped_column(JSONB)
    appointment_name: Mapped[str | None] = mapped_column(Encrypted)
    expenses: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    expense_details: Mapped[list[dict[str, Any]] | None] = mapped_column(Encrypted)
    rollback: Mapped[bool] = mapped_column(default=False)
    rollback_result: Mapped[str] = mapped_column(default="none")
    rollback_detail: Mapped[str | None]
    undo: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    failed_in: Mapped[str | None]
    told: Mapped[bool] = mapped_column(default=False)
    callback_url: Mapped[str | None] = mapped_column(Encrypted)
    callback_wanted: Mapped[bool] = mapped_column(default=False, server_default=false())
    btsss_token: Mapped[str | None] = mapped_column(Encrypted)
    veis_fingerprint: Mapped[str | None]
    appointment_id: Mapped[str | None]
    facility_name: Mapped[str | None]
    associated_claim_id: Mapped[str | None]
    associated_claim_number: Mapped[str | None]
    claim_id: Mapped[str | None]
    claim_made: Mapped[bool] = mapped_column(default=False)
    adopt_expenses: Mapped[bool] = mapped_column(default=False)
    create_doubted: Mapped[bool] = mapped_column(default=False)
    claim_number: Mapped[str | None]
    status: Mapped[str | None]

    # Loaded beside the row: claim ids that this client's workflows for the same visit recorded, and whether any of them
    # saw no claim there and then had a create in doubt (contract 5.3, "ours"); whether the line is on for the client.
    own_claims: frozenset[str] = frozenset()
    visit_doubted: bool = False
    line_on: bool = True
    through: Any = None  # the gateway of a caller without a database

    __table_args__: Any = (Index("ix_claims_visit", "visit"), Index("ix_claims_claim_id", "claim_id"))
