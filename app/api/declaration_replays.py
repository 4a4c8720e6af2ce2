"""Replays of failed declarations over HTTP, for operators. Source: declarations contract, 2.5."""

import json
from functools import partial
from typing import Any
from uuid import UUID

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from app import db, errors
from app.api import auth, headers, idempotency, openapi, problems, waiting
from app.api.openapi import Good
from app.fields import untitled
from app.flows import replay_request, replays
from app.store.replays import Counts

PREFIX = "/bc-passengers-declarations/replay"
_ID = "0b6f0a52-7f0e-4c58-9a55-3a1f6f1c7d10"
_RUNNING = {
    "replayId": _ID,
    "state": "running",
    "matched": 1,
    "waiting": 1,
    "submitted": 0,
    "failedAgain": 0,
    "skipped": 0,
}
_PLACED = ("Location", "Preference-Applied")
_DRY_RUN = {"dryRun": True, "matched": 1, "sample": ["XFPR0000000123"]}
_DONE = {**_RUNNING, "state": "done", "waiting": 0, "submitted": 1}
_ASKED = {
    "filter": {"error": "mdg-400", "failedFrom": "2026-11-20T00:00:00Z"},
    "reason": "MDG has corrected its port list",
}
_KEYED = ("invalid-request", "unauthorized", "forbidden", "feature-disabled", "internal-error", "unavailable")
_WITH_BODY = (
    "malformed-json",
    "too-large",
    "unsupported-media-type",
    "idempotency-in-progress",
    "idempotency-mismatch",
)
api = APIBlueprint(
    "declaration_replays", __name__, abp_tags=[Tag(name="Declarations: replay")], abp_security=openapi.KEY
)


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, json_schema_extra=untitled)


class Replay(_Answer):
    """How far a replay is. `matched` = `waiting` + `submitted` + `failedAgain` + `skipped`."""

    replay_id: str = Field(json_schema_extra={"format": "uuid"})
    state: str = Field(
        description="done once nothing is waiting, else running.", json_schema_extra={"enum": ["running", "done"]}
    )
    matched: int
    waiting: int
    submitted: int
    failed_again: int
    skipped: int = Field(description="No longer failed when their turn came.")


class DryRun(_Answer):
    """What a replay would move."""

    dry_run: bool
    matched: int
    sample: list[str] = Field(description="At most 10 charge references, oldest failure first.")


class Told(RootModel[Replay | DryRun]):
    """Either."""


@openapi.documented(
    examples={"replay": {"value": _ASKED}, "dry run": {"value": {"filter": {"release": "2026.11.1"}, "dryRun": True}}}
)
class Asked(replay_request.Asked):
    """Which failed submissions are to be sent again."""


class ReplayPath(BaseModel):
    replay_id: str = Field(json_schema_extra={"format": "uuid"})


def _voice(refused: errors.Refused) -> Response:
    """Fields at fault are 400 here."""
    if refused.kind == "validation-failed":
        refused.status, refused.kind = 400, "invalid-request"
    return problems.as_problem(refused)


@api.post(
    PREFIX,
    summary="Replay failed declarations",
    description="Moves failed submissions back to paid, so that they are sent again. All parts of the filter must "
    "hold; without any, every failed one is meant.",
    operation_id="replayDeclarations",
    responses=openapi.answers(
        Good(
            status=200,
            says="A dry run; or waited for, and done.",
            model=Told,
            examples={"dry run": _DRY_RUN, "done": _DONE},
            headers=_PLACED,
        ),
        Good(status=202, says="Begun.", model=Replay, examples={"running": _RUNNING}, headers=_PLACED),
        refused=(*_KEYED, *_WITH_BODY),
        instance=PREFIX,
        line="declarations",
    ),
)
@auth.needs("operator", line="declarations", voice=_voice, kept=frozenset({400, 404, 409}))
def replay(header: openapi.PostHeaders, body: Asked) -> Response:  # noqa: ARG001 - headers stand for the docs
    """What matches is stored with the answer in one transaction; a worker moves it, and the caller may wait for it."""
    if body.dry_run:
        with db.transaction() as session:
            matched, sample = replays.preview(session, body)
        return _json({"dryRun": True, "matched": matched, "sample": sample})
    wait = headers.wait()
    with db.transaction() as session:
        replay_id, counts = replays.open_replay(session, body, by=auth.caller().name)
        response = _json(_shown(replay_id, counts), status=202)
        response.headers["Location"] = f"{PREFIX}/{replay_id}"
        idempotency.keep(session, response, final=wait is None)
        db.after_commit(session, partial(replays.kick, replay_id))
    return response if wait is None else _waited(replay_id, wait, response)


def _waited(replay_id: UUID, seconds: int, first: Response) -> Response:
    """What became of it, if it is done in time; the first answer if Postgres goes away meanwhile."""
    first.headers["Preference-Applied"] = f"wait={seconds}"
    try:
        waiting.at_a_place("declarations", lambda: _is_done(replay_id), seconds=seconds)
        counts = replays.counts(replay_id)
    except Exception as error:
        if db.unreachable(error):
            return first
        raise
    if counts is None or counts.waiting:
        return first
    done = _json(_shown(replay_id, counts))
    done.headers.extend({name: first.headers[name] for name in _PLACED})
    return done


def _is_done(replay_id: UUID) -> bool:
    counts = replays.counts(replay_id)
    return counts is None or not counts.waiting


@api.get(
    f"{PREFIX}/<replay_id>",
    summary="Show a replay",
    description="How far it is. It is done when nothing is waiting any more.",
    operation_id="showReplay",
    responses=openapi.answers(
        Good(status=200, says="The replay as it stands.", model=Replay, examples={"running": _RUNNING, "done": _DONE}),
        refused=(*_KEYED, "not-found"),
        instance=f"{PREFIX}/{_ID}",
        line="declarations",
    ),
)
@auth.needs("operator", line="declarations")
def show_replay(path: ReplayPath, header: openapi.GetHeaders) -> Response:  # noqa: ARG001 - headers stand for the docs
    counts = replays.counts(found) if (found := _id(path.replay_id)) else None
    if found is None or counts is None:
        raise errors.Refused(404, "not-found", "There is no such replay.")
    return _json(_shown(found, counts))


def _id(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None


def _shown(replay_id: UUID, counts: Counts) -> dict[str, Any]:
    return {
        "replayId": str(replay_id),
        "state": "running" if counts.waiting else "done",
        "matched": counts.matched,
        "waiting": counts.waiting,
        "submitted": counts.submitted,
        "failedAgain": counts.failed_again,
        "skipped": counts.skipped,
    }


def _json(document: object, *, status: int = 200) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")
