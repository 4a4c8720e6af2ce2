"""The time, for business rules.

Tests freeze it. The engine does not use it: leases and back-off are reckoned by Postgres's own clock.
"""

from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)
