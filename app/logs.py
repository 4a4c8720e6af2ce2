"""Structured logs: one JSON object per line on stdout, for our own records and those of every library.

`event` is a constant; everything else is a field. `bind()` puts ids on every record of a block. Personal data does not
get here in the first place; the scrubber is the last defence, also for exception texts.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

import structlog

REMOVED = "[removed]"
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_PERSONAL = (
    re.compile(r"\d{10}[Vv]\d{6}"),  # an ICN
    # A phone number: in groups, as E.164 (also with separators), and bare. In this order: one never eats into the next.
    re.compile(r"(?<![\w.-])(?:\+?1[ ./-]?)?\(?\d{3}\)?[ ./-]\d{3}[ ./-]\d{4}(?![\w-])"),
    re.compile(r"(?<![\w+])\+[1-9][\d .()-]{6,18}\d"),
    re.compile(r"(?<![\w.+-])1?[2-9]\d{9}(?![\w-])"),
)
_SECRET = re.compile(
    r"""
      \beyJ[\w-]+(?:\.[\w-]*)*                            # a JSON web token, whole or in part
    | (?<=\b[Bb]earer\ )[^\s"',;]+
    | (?P<long>[\w+=~-]{32,})
    """,
    re.VERBOSE,
)
_IDS = frozenset(
    {"level", "logger", "timestamp", "correlation_id", "correlationId", "workflow", "claim", "worker", "release"}
)
_QUIET = ("urllib3", "requests", "sqlalchemy", "kombu", "amqp", "limits")
_OWN_HANDLERS = ("gunicorn.error", "gunicorn.access", "celery", "celery.task", "celery.redirected", "werkzeug")


def scrub(text: str) -> str:
    """The text with ICNs, phone numbers and token-like strings replaced by `[removed]`. UUIDs and names stay."""
    return _SECRET.sub(_without_secret, scrub_personal(text))


def scrub_personal(text: str) -> str:
    """As `scrub`, but leaves token-like strings: for ids, which may look like one."""
    for pattern in _PERSONAL:
        text = pattern.sub(REMOVED, text)
    return text


def _without_secret(match: re.Match[str]) -> str:
    text = match["long"]
    if text is None:
        return REMOVED
    digits = sum(letter.isdigit() for letter in text)
    harmless = _UUID.fullmatch(text) or digits < 3 or digits == len(text)
    return text if harmless else REMOVED


def configure(level: str = "INFO") -> None:
    """Send every record of this process to stdout as JSON. May be called again; the last call counts.

    A Celery worker calls it from the `setup_logging` signal, which keeps Celery's hands off the root logger.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_common(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _scrubbed,
                structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _tame_libraries()
    logging.captureWarnings(True)
    structlog.configure(
        processors=_through_logging(),
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module. Until `configure` its records go where the standard library sends them."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), processors=_through_logging(), wrapper_class=structlog.stdlib.BoundLogger
    )
    return logger


def bind(**fields: Any) -> AbstractContextManager[None]:
    """Put these fields (correlation_id, workflow, client, ...) on every record of the `with` block, in this thread."""
    return structlog.contextvars.bound_contextvars(**fields)


def _through_logging() -> list[structlog.typing.Processor]:
    return [structlog.stdlib.filter_by_level, *_common(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter]


def _common() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _tame_libraries() -> None:
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _scrubbed(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> Mapping[str, Any] | str | bytes | bytearray | tuple[Any, ...]:
    return {name: _clean(value, name in _IDS) for name, value in fields.items()}


def _clean(value: Any, is_id: bool = False) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return scrub_personal(str(value)) if is_id else scrub(str(value))
