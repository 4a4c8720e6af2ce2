"""Logs are JSON, carry the bound ids, and never hold what is personal or secret."""

import io
import json
import logging
import warnings
from types import SimpleNamespace

import pytest
import structlog

from app import logs

ICN = "1012667122V019349"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
CLAIM = "7d0f2c1e-5b0a-4b86-9c3d-0a1f6e2b8c44"


@pytest.fixture
def lines(monkeypatch):
    """The records written so far, after `configure`; the logging of the test run is put back."""
    out, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stdout=out))
    logs.configure("INFO")
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_a_record_is_one_json_object_with_its_fields(lines):
    logs.get("app.tested").info("claims.step", step="authorize", seconds=0.25, attempt=1, ok=True, none=None)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "claims.step",
        "level": "info",
        "logger": "app.tested",
        "step": "authorize",
        "seconds": 0.25,
        "attempt": 1,
        "ok": True,
        "none": None,
    }


def test_loggers_of_structlog_itself_do_the_same(lines):
    structlog.get_logger("engine").warning("engine.verb-crashed", verb="do")
    (line,) = lines()
    assert (line["event"], line["logger"], line["verb"]) == ("engine.verb-crashed", "engine", "do")


def test_records_of_libraries_look_alike(lines):
    logging.getLogger("celery.worker").warning("lost %s", "something")
    logging.getLogger("gunicorn.error").error("worker died")
    assert [(line["event"], line["logger"], line["level"]) for line in lines()] == [
        ("lost something", "celery.worker", "warning"),
        ("worker died", "gunicorn.error", "error"),
    ]


def test_handlers_of_libraries_are_taken_away(lines):
    own = logging.getLogger("gunicorn.error")
    own.addHandler(logging.StreamHandler(io.StringIO()))
    own.propagate = False
    logs.configure("INFO")
    assert (own.handlers, own.propagate) == ([], True)


def test_noisy_libraries_are_quiet(lines):
    logging.getLogger("urllib3.connectionpool").info("Starting new connection")
    logging.getLogger("sqlalchemy.engine").info("SELECT 1")
    assert lines() == []


def test_the_level_is_obeyed_and_configuring_twice_doubles_nothing(lines):
    logs.configure("WARNING")
    logger = logs.get("app.tested")
    logger.info("not.shown")
    logger.warning("shown")
    assert [line["event"] for line in lines()] == ["shown"]


def test_bound_fields_are_on_every_record_of_the_block(lines):
    with logs.bind(correlation_id="c-1", workflow=CLAIM), logs.bind(client="pci"):
        logs.get("one").info("a")
        logging.getLogger("two").info("b")
    logs.get("one").info("c")
    first, second, third = lines()
    for line in (first, second):
        assert (line["correlation_id"], line["workflow"], line["client"]) == ("c-1", CLAIM, "pci")
    assert "client" not in third


def test_an_exception_is_a_field_and_its_text_is_scrubbed(lines):
    try:
        raise ValueError(f"no such veteran {ICN}")
    except ValueError:
        logs.get("app.tested").exception("claims.failed")
    (line,) = lines()
    assert "Traceback" in line["exception"]
    assert "ValueError: no such veteran [removed]" in line["exception"]


def test_what_is_personal_is_removed_wherever_it_stands(lines):
    logger = logs.get("app.tested")
    logger.info("one", text=f"ICN {ICN}", nested={"phone": ["+12025550143"]}, pair=(ICN, 1))
    logging.getLogger("library").warning("calling %s with Bearer %s", "+12025550143", JWT)
    with logs.bind(correlation_id=ICN):
        logger.info("two")
    shown = json.dumps(lines())
    for secret in (ICN, "2025550143", JWT):
        assert secret not in shown


def test_warnings_are_records(lines):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("mind the gap", stacklevel=1)
    assert "mind the gap" in lines()[0]["event"]


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (f"for {ICN}.", "for [removed]."),
        ("for 1012667122v019349", "for [removed]"),
        (f"x{ICN}x", "x[removed]x"),
        ("to +12025550143", "to [removed]"),
        ("to +1 202-555-0143 now", "to [removed] now"),
        ("to (202) 555-0143", "to [removed]"),
        ("to 202.555.0143", "to [removed]"),
        ("to 2025550143", "to [removed]"),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer [removed]"),
        (f"token {JWT} here", "token [removed] here"),
        ("key " + "a1B2" * 10, "key [removed]"),
        (f"key sandbox-{CLAIM}-{CLAIM}", "key [removed]"),
    ],
)
def test_what_looks_personal_or_secret_is_removed(text, scrubbed):
    assert logs.scrub(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        f"claim {CLAIM}",
        "TC202603000013890",
        "CLM_002_CLAIM_EXISTS and CLAIM_ALREADY_SUBMITTED",
        "2026-03-02T10:00:00Z",
        "api/v3/claims/search-by-appointment-date",
        "a_function_with_a_rather_long_name_in_a_traceback",
        "at 1772463902",
        "File 'app/upstreams/travel_pay.py', line 120",
    ],
)
def test_what_is_harmless_stays(text):
    assert logs.scrub(text) == text


def test_ids_that_look_like_tokens_stay(lines):
    commit = "0123456789abcdef0123456789abcdef01234567"
    logs.get("app.tested").info("claims.step", release=commit, correlation_id=commit[:32], other=commit)
    (line,) = lines()
    assert (line["release"], line["correlation_id"], line["other"]) == (commit, commit[:32], "[removed]")


def test_before_configure_nothing_is_printed(capsys):
    logs.get("app.tested").info("claims.step")
    assert capsys.readouterr().out == ""
