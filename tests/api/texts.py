"""Texts, receipts for them and what is counted of both."""

from typing import Any
from uuid import UUID

from app import db, metrics
from app.models.notification import Notification

TOKEN, SECOND = "first-token-" + "a" * 32, "second-token-" + "b" * 32
NOTIFY_ID = "c9a1e7b4-0d52-4f6e-93b8-7e2f1a6c5d08"


def text_of(id: str) -> Notification:
    with db.transaction() as session:
        return session.get_one(Notification, UUID(id))


def state(id: str) -> str:
    return text_of(id).state


def counted(metric: Any, **labels: str) -> float:
    return float(metric.labels(**labels)._value.get())


class Counts:
    """What the metrics have gained since it was made."""

    def __init__(self, template: str = "error", product: str = "pci") -> None:
        self.template, self.product = template, product
        self.before = self._read()

    def _read(self) -> dict[str, float]:
        told = {
            result: counted(metrics.claims_notify, product=self.product, template=self.template, result=result)
            for result in ("success", "delivered", "error", "skipped")
        }
        function = {"pci": "CheckIn Travel Pay Notification Failure", "oh": "OH Travel Pay Notification Failure"}
        silent = counted(metrics.silent_failure, service="check-in", function=function[self.product])
        return {**told, "silent": silent}

    def gained(self) -> dict[str, float]:
        now = self._read()
        return {name: now[name] - self.before[name] for name in now if now[name] != self.before[name]}


def receipts(status: str, known: bool = True, product: str = "pci") -> float:
    return counted(metrics.claims_notify_receipts, product=product, status=status, known=str(known).lower())
