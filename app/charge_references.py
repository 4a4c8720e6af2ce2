"""Charge references: the key that payment and MDG use for a declaration. Source: declarations contract, 2.10.

`X`, a check letter, `PR`, ten digits. Not personal data.
"""

import re
from collections.abc import Mapping
from typing import Any

LAST = 9_999_999_999
FORMAT = "X[A-Z]PR[0-9]{10}"
_LETTERS = "ABCDEFGHXJKLMNYPQRSTZVW"
_WEIGHTS = (9, 10, 11, 12, 13, 8, 7, 6, 5, 4, 3, 2)
_OF_PR = (48, 50)


def make(number: int) -> str:
    """The reference of this number, which is from 1 to 9999999999. Raises ValueError beyond."""
    if not 1 <= number <= LAST:
        raise ValueError(f"A charge number is from 1 to {LAST}")
    digits = f"{number:010}"
    return f"X{_check_letter(digits)}PR{digits}"


def is_valid(text: str) -> bool:
    """Whether this is a reference that we could have made: its format, and the right check letter."""
    return re.fullmatch(FORMAT, text) is not None and text[1] == _check_letter(text[4:])


def _check_letter(digits: str) -> str:
    values = (*_OF_PR, *map(int, digits))
    total = sum(value * weight for value, weight in zip(values, _WEIGHTS, strict=True))
    return _LETTERS[total % len(_LETTERS)]


def placed(payload: Mapping[str, Any], reference: str, acknowledgement: str) -> dict[str, Any]:
    """A valid payload with both references: in place of what the client sent, else last in their objects."""
    request = payload["simpleDeclarationRequest"]
    common, detail = request["requestCommon"], request["requestDetail"]
    header = detail["declarationHeader"] | {"chargeReference": reference}
    common = common | {"acknowledgementReference": acknowledgement}
    request = request | {"requestCommon": common, "requestDetail": detail | {"declarationHeader": header}}
    return {**payload, "simpleDeclarationRequest": request}
