"""What runs by the clock, with a reason per line. Nothing else: due work is found by the workers' own sweep."""

from typing import Any

from celery.schedules import crontab

from app import config

SCHEDULE: dict[str, dict[str, Any]] = {
    # Idempotency keys live 24 h; an hour more or less hurts nobody, so once an hour is enough.
    "retention": {"task": "sweeps.retention", "schedule": crontab(minute=17)},
    # Personal data goes 30 days after a claim is final; every ten minutes keeps each round small.
    "erasure": {"task": "sweeps.erasure", "schedule": crontab(minute="*/10")},
    # A voucher's next operation is started by the end of the one before; this catches what was missed.
    "voucher-operations": {"task": "sweeps.voucher_operations", "schedule": 15.0},
    # Vouchers are suspended, active again or cancelled at London's midnight; who reads them derives it meanwhile.
    "voucher-states": {"task": "sweeps.voucher_states", "schedule": crontab(minute="*/15")},
}


def schedule() -> dict[str, dict[str, Any]]:
    """All of it, with what runs in intervals of the settings."""
    line = config.settings().declarations
    return {
        **SCHEDULE,
        # How late a payment that never came, or a submission that is late, may be noticed.
        "declaration-payments": {"task": "sweeps.declaration_payments", "schedule": line.payment_timeout_sweep},
        # A starting worker replays at once; this is for a database that was down then, and for lost messages.
        "declaration-replays": {"task": "sweeps.declaration_replays", "schedule": line.replay_sweep},
        # Personal data goes weeks after the end; how often we look decides how large a round is.
        "declaration-erasure": {"task": "sweeps.declaration_erasure", "schedule": line.declarations_retention_sweep},
    }
