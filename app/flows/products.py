"""At start: every product that a client has must have its credentials, templates and senders."""

from typing import get_args

import structlog

from app import config, db
from app.config import Template
from app.store import clients

log = structlog.get_logger("start")


def check() -> None:
    """Raises BadSettings, naming the variable. A database that is down at start only postpones the question."""
    settings = config.settings()
    try:
        with db.transaction() as session:
            products = clients.products(session)
    except Exception as error:
        if not db.unreachable(error):
            raise
        log.warning("start.products-unchecked", reason="Postgres cannot be reached")
        return
    for product in products:
        if settings.travel_pay:
            settings.travel_pay.credentials(product)
        if settings.travel_pay and settings.notify:
            settings.notify.sender(product)
            for template in get_args(Template):
                settings.notify.template(product, template)
