"""The page for people at `/_/`: totals of the ledger, faults that are set, and the last calls; renewed by itself."""

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

SHOWN_CALLS = 50
FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>Sandbox</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1b1b }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
table {{ border-collapse: collapse; width: 100% }} caption {{ text-align: left; color: #555 }}
th, td {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ddd; white-space: nowrap }}
td.long {{ white-space: normal; word-break: break-all }} .bad {{ color: #a40000; font-weight: 600 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #16181c; color: #e6e6e6 }} th, td {{ border-color: #333 }}
.bad {{ color: #ff8a80 }} caption {{ color: #aaa }} }}
</style></head><body><h1>Sandbox upstreams</h1>
<p>{ports}</p>
<h2>Effects</h2>{totals}
<h2>Faults</h2>{faults}
<h2>Last calls</h2>{calls}
<p>As JSON: <a href="/_/ledger">ledger</a> · <a href="/_/calls?limit=100">calls</a> · <a href="/_/faults">faults</a> ·
<a href="/_/settings">settings</a> · <a href="/_/listeners">listeners</a></p></body></html>
"""


def rendered(sandbox: "Sandbox") -> str:
    totals, duplicates = sandbox.world.ledger.totals(), sandbox.world.ledger.duplicates()
    effects = [(kind, count, _warned(duplicates[kind])) for kind, count in totals.items()]
    faults = [
        (one["id"], one["call"], one["fault"], "always" if one["left"] is None else one["left"], one["used"])
        for one in sandbox.faults()
    ]
    ports = " · ".join(
        f"{escape(name)} {escape(sandbox.url(name))}{'' if listener.is_open else _bad(' closed')}"
        for name, listener in sandbox.listeners.items()
    )
    return FRAME.format(
        ports=ports,
        totals=_table(("effect", "times", "beyond the first"), effects),
        faults=_table(("id", "call", "fault", "left", "used"), faults) if faults else "<p>None.</p>",
        calls=_table(
            ("#", "at", "call", "request", "status", "ms", "fault", "correlation"),
            [_call(one) for one in reversed(sandbox.calls(limit=SHOWN_CALLS))],
        ),
    )


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _call(one: dict[str, Any]) -> tuple[Any, ...]:
    status, seconds = one["status"], one["seconds"]
    shown = "under way" if status is None else status if isinstance(status, int) and status < 400 else _bad(str(status))
    milliseconds = "" if seconds is None else f"{seconds * 1000:.1f}"
    request = Markup(f'<td class="long">{escape(one["method"])} {escape(one["path"])}</td>')
    correlation = one["correlation_id"] or ""
    name, fault = one["call"] or "unknown", one["fault"] or ""
    return one["number"], one["at"][11:], name, request, shown, milliseconds, fault, correlation


def _warned(count: int) -> Any:
    return _bad(str(count)) if count else "0"


def _bad(text: str) -> Markup:
    return Markup(f'<span class="bad">{escape(text)}</span>')


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(_cell(one) for one in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return value if value.startswith("<td") else f"<td>{value}</td>"
    return f"<td>{escape(str(value))}</td>"
