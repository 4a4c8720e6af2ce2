"""What is wrong with the payload of a declaration, in the words and the order of the contract (2.2).

No text repeats a value of the payload; names of properties are repeated, cut.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from app.declaration_schema import PAYLOAD, Array, Flag, Format, Kind, Object, Text
from app.numerals import Whole

_LONGEST_NAME = 64
_WANTED: Mapping[type, str] = {Object: "object", Array: "array", Text: "string", Flag: "boolean"}
_TYPES: Mapping[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    Whole: "integer",
    Decimal: "number",
    type(None): "null",
}


class Fault(NamedTuple):
    """`pointer`: a JSON pointer to the value; where the fault is about an object's properties, to the object."""

    pointer: str
    code: str
    text: str


def of(payload: Any) -> list[Fault]:
    """Every fault of a payload as `bodies.parse` reads it, by pointer; none: it is valid.

    Below a wrong type nothing is looked at. The references that we set ourselves are passed over.
    """
    return sorted(_faults("", payload, PAYLOAD), key=lambda fault: fault.pointer)


def _faults(pointer: str, value: Any, kind: Kind) -> Iterator[Fault]:
    """Those of one value stand in the order of the contract's table."""
    wanted, found = _WANTED[type(kind)], _TYPES[type(value)]
    if found != wanted:
        yield Fault(
            pointer,
            "type",
            f'instance type ({found}) does not match any allowed primitive type (allowed: ["{wanted}"])',
        )
    elif isinstance(kind, Object):
        yield from _of_object(pointer, value, kind)
    elif isinstance(kind, Array):
        for index, item in enumerate(value):
            yield from _faults(f"{pointer}/{index}", item, kind.of)
    elif isinstance(kind, Text):
        yield from (Fault(pointer, *told) for told in _of_text(value, kind))


def _of_object(pointer: str, value: Mapping[str, Any], kind: Object) -> Iterator[Fault]:
    known, given = kind.properties, value.keys() - {kind.ours}
    if len(given) < kind.least:
        text = f"object has too few properties (found {len(given)} but schema requires at least {kind.least})"
        yield Fault(pointer, "too-few-properties", text)
    if missing := kind.required.keys() - given:
        yield Fault(pointer, "missing", f"object has missing required properties ({_listed(missing)})")
    if unknown := given - known.keys():
        text = f"object instance has properties which are not allowed by the schema: {_listed(unknown)}"
        yield Fault(pointer, "not-allowed", text)
    for name in given & known.keys():
        yield from _faults(f"{pointer}/{name}", value[name], known[name])


def _listed(names: Iterable[str]) -> str:
    return _shown([name[:_LONGEST_NAME] for name in sorted(names)])


def _shown(words: Sequence[str]) -> str:
    return json.dumps(words, ensure_ascii=False, separators=(",", ":"))


def _of_text(value: str, kind: Text) -> Iterator[tuple[str, str]]:
    """The first fault of a string, as code and text."""
    if len(value) < kind.least:
        yield "too-short", f"string is too short (length: {len(value)}, required minimum: {kind.least})"
    elif kind.most is not None and len(value) > kind.most:
        yield "too-long", f"string is too long (length: {len(value)}, maximum allowed: {kind.most})"
    elif kind.words and value not in kind.words:
        yield "enum", f"instance value not found in enum (possible values: {_shown(kind.words)})"
    elif kind.pattern and not re.fullmatch(kind.pattern, value):
        yield "pattern", f'ECMA 262 regex "{kind.pattern}" does not match input string'
    elif kind.format and not _is_real(value, kind.format):
        yield "format", f"string is invalid against requested date format(s) {kind.format.shown}"


def _is_real(value: str, wanted: Format) -> bool:
    try:
        datetime.strptime(value, wanted.parse)  # noqa: DTZ007 - looked at, not used
    except ValueError:
        return False
    return True
