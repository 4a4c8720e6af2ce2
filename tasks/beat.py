"""What runs by the clock, with a reason per line. Nothing else: due work is found by the workers' own sweep."""

from celery.schedules import crontab

SCHEDULE = {
    # Idempotency keys live 24 h; an hour more or less hurts nobody, so once an hour is enough.
    "retention": {"task": "sweeps.retention", "schedule": crontab(minute=17)},
    # Personal data goes 30 days after a claim is final; every ten minutes keeps each round small.
    "erasure": {"task": "sweeps.erasure", "schedule": crontab(minute="*/10")},
}
