"""`throughline replay` as an operator types it: the same rules as over HTTP. Contract 2.5."""

from collections.abc import Callable
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select, text

from app import db, logs, replay_command
from app.cli import main
from app.flows import replays, voucher_endings
from app.models.replay import Replay
from app.store import workflows
from tests.flows import voucher_play
from tests.flows.declared import S, failed, got

Type = Callable[..., Result]
WHY = ("--reason", "port list corrected")


@pytest.fixture
def replay(database: None) -> Type:
    """`replay("--all")` runs the command in this process."""

    def run(*words: str) -> Result:
        result = CliRunner().invoke(main, ["replay", "--line", "declarations", *words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """While the command waits, a worker submits one that is due. The references, in that order."""
    done: list[str] = []

    def submit_one(_seconds: float) -> None:
        with db.transaction() as session:
            one: UUID = session.execute(
                text("SELECT id FROM workflows WHERE state = 'paid' ORDER BY updated_at, id LIMIT 1")
            ).scalar_one()
            seen = workflows.read(session, one)
            assert seen
            workflows.move(session, seen, S.SUBMITTED, actor="worker")
            replays.replays.close(session, one, "submitted")
        done.append(got(one).charge_reference)

    monkeypatch.setattr(replay_command.time, "sleep", submit_one)
    return done


def test_it_moves_what_failed_and_shows_how_far_it_is_until_it_is_done(replay: Type, worker: list[str]) -> None:
    ids = [failed(age=age) for age in (10, 20)]
    answer = replay("--all", *WHY)
    first, last = answer.stdout.splitlines()
    assert (answer.exit_code, first.split()[0]) == (0, "replay")
    assert last == "matched 2, waiting 0, submitted 2, failed again 0, skipped 0"
    assert worker == [got(one).charge_reference for one in reversed(ids)]
    with db.transaction() as session:
        stored = session.scalars(select(Replay)).one()
    assert (str(stored.id), stored.reason) == (first.split()[1], "port list corrected")


def test_every_filter_is_understood(replay: Type, worker: list[str]) -> None:
    fits = got(failed(release="2026.11.2", error="mdg-413", of="other")).charge_reference
    failed()
    answer = replay(
        "--release", "2026.11.2", "--from", "2026-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00+01:00",
        "--error", "mdg-413", "--client", "other", "--reference", fits, "--reference", "XFPR0000000123", *WHY,
    )  # fmt: skip
    assert (answer.exit_code, worker) == (0, [fits])


def test_a_dry_run_tells_how_many_and_which_and_changes_nothing(replay: Type) -> None:
    one = failed()
    answer = replay("--error", "mdg-400", "--dry-run")
    assert (answer.exit_code, answer.stdout) == (0, f"1 would be replayed.\n{got(one).charge_reference}\n")
    assert got(one).state == S.FAILED
    assert replay("--all", "--dry-run", "--error", "mdg-413").stdout == "0 would be replayed.\n"


def test_nothing_to_replay_is_done_at_once(replay: Type) -> None:
    answer = replay("--all", *WHY)
    assert (answer.exit_code, answer.stdout.splitlines()[1][:10]) == (0, "matched 0,")


def test_who_has_seen_enough_leaves_it_to_the_workers(replay: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(replay_command.time, "sleep", interrupt)
    one = failed()
    answer = replay("--all", *WHY)
    assert (answer.exit_code, got(one).state) == (0, S.PAID)
    assert "waiting 1" in answer.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (WHY, "--all"),
        (("--dry-run",), "--all"),
        (("--all",), "--reason: This field is required unless dryRun is true."),
        (("--all", "--reason", "x" * 201), "--reason: Must have at most 200 characters."),
        (("--all", "--reason", ""), "--reason: Must have at least 1 characters."),
        (("--from", "yesterday", *WHY), "--from: Must be a moment with its zone"),
        (("--from", "2026-11-02T00:00:00Z", "--to", "2026-11-01T00:00:00Z", *WHY), "--to: Must be after failedFrom."),
        (("--reference", "XAPR0000000123", *WHY), "--reference: Must be a charge reference."),
        (("--line", "claims", "--all", *WHY), "'claims' is not one of 'declarations', 'vouchers'"),
        (("--all", "--operation", str(UUID(int=1)), *WHY), "--operation: for --line vouchers."),
        (("--everything",), "No such option"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_wrong_usage_ends_with_2_and_a_sentence(replay: Type, words: tuple[str, ...], said: str) -> None:
    one = failed()
    answer = replay(*words)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert said in answer.stderr
    assert got(one).state == S.FAILED


@pytest.fixture
def given_up(database: None) -> UUID:
    """An operation on a voucher that failed."""
    operation = voucher_play.create()
    with db.transaction() as session:
        assert voucher_endings.give_up(session, operation)
    return operation


def test_an_operation_on_a_voucher_is_replayed_by_its_id(replay: Type, given_up: UUID) -> None:
    words = ("--line", "vouchers", "--operation", str(given_up))
    dry = replay(*words, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, f"{given_up} would be queued.\n")
    answer = replay(*words, *WHY)
    assert (answer.exit_code, answer.stdout) == (0, f"{given_up} is queued.\n")
    again = replay(*words, *WHY)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "The operation is queued" in again.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (WHY, "--operation"),
        (("--operation", str(UUID(int=1))), "--reason"),
        (("--operation", str(UUID(int=1)), "--reason", "x" * 201), "--reason"),
        (("--operation", str(UUID(int=1)), "--reason", " "), "--reason"),
        (("--operation", "a2F5I000003KvWxUAK", *WHY), "--operation"),
        (("--operation", str(UUID(int=1)), "--all", *WHY), "nothing else says which"),
        (("--operation", str(UUID(int=1)), "--client", "crm", *WHY), "nothing else says which"),
    ],
)
def test_wrong_usage_for_vouchers_ends_with_2_and_a_sentence(replay: Type, words: tuple[str, ...], said: str) -> None:
    answer = replay("--line", "vouchers", *words)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert said in answer.stderr


def test_migrating_moves_the_charge_references_forward(
    database: None, set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda level: None)  # it is for a process of its own
    set_settings(CHARGE_REFERENCE_START=5_000_000)
    try:
        assert CliRunner().invoke(main, ["migrate"]).exit_code == 0
        assert got(failed()).charge_reference.endswith("PR0005000000")
    finally:
        with db.transaction() as session:
            session.execute(text("ALTER SEQUENCE charge_reference_seq RESTART WITH 1"))
