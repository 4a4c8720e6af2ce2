"""Charge references: the table of the contract, 2.10, and a check of our own making."""

import random

import pytest

from app import charge_references
from app.charge_references import is_valid, make
from tests.declaration_payloads import payload

TABLE = {
    1: "XYPR0000000001", 2: "XQPR0000000002", 3: "XSPR0000000003", 10: "XPPR0000000010", 17: "XGPR0000000017",
    42: "XFPR0000000042", 99: "XLPR0000000099", 100: "XQPR0000000100", 105: "XDPR0000000105", 123: "XFPR0000000123",
    1_000_000: "XZPR0001000000", 1_234_567_890: "XHPR1234567890", 2_147_483_647: "XTPR2147483647",
    2_147_483_648: "XVPR2147483648", 9_999_999_999: "XHPR9999999999",
}  # fmt: skip
REFUSED = [
    "XAPR0000000001", "XYPR000000001", "XYPR00000000001", "xypr0000000001", "XYPX0000000001", "XDDD0000000105",
    "XYPR0000000001\n", " XYPR0000000001", "XYPR000000000\u0661", "XYPR" + "\uff10" * 9 + "\uff11",
    "", "X", "XYPR-000000001", "XYPR0000000001\0",
]  # fmt: skip


@pytest.mark.parametrize(("number", "reference"), TABLE.items())
def test_the_references_of_the_table(number: int, reference: str) -> None:
    assert make(number) == reference
    assert is_valid(reference)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_reference(text: str) -> None:
    assert not is_valid(text)


@pytest.mark.parametrize("number", [0, -1, 10_000_000_000])
def test_there_is_no_reference_of_other_numbers(number: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 9999999999"):
        make(number)


def test_ten_thousand_references_are_unique_and_pass_a_check_of_another_making() -> None:
    chance = random.Random(1)
    numbers = {*range(1, 5_001), *(chance.randint(5_001, charge_references.LAST) for _ in range(5_000))}
    made = [make(number) for number in numbers]
    assert len(set(made)) == len(numbers) >= 9_990
    assert all(is_valid(reference) for reference in made)
    for number, reference in zip(numbers, made, strict=True):
        # The remainder written out, without the module's tables.
        total, rest = 48 * 9 + 50 * 10, number
        for weight in (2, 3, 4, 5, 6, 7, 8, 13, 12, 11):
            rest, digit = divmod(rest, 10)
            total += weight * digit
        assert reference == "X" + "ABCDEFGHXJKLMNYPQRSTZVW"[total % 23] + "PR" + str(number).zfill(10)


def test_any_other_check_letter_is_wrong() -> None:
    right = TABLE[123]
    letters = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if is_valid(f"X{letter}{right[2:]}")]
    assert letters == [right[1]]


# Placing them


def test_references_that_the_client_did_not_send_become_the_last_keys() -> None:
    request = charge_references.placed(payload(), "C", "A")["simpleDeclarationRequest"]
    header = request["requestDetail"]["declarationHeader"]
    assert list(request["requestCommon"]) == ["receiptDate", "requestParameters", "acknowledgementReference"]
    assert list(header)[-2:] == ["ukExcisePaid", "chargeReference"]
    assert (request["requestCommon"]["acknowledgementReference"], header["chargeReference"]) == ("A", "C")


def test_references_that_the_client_sent_are_replaced_where_they_stand() -> None:
    sent = payload()
    request = sent["simpleDeclarationRequest"]
    request["requestCommon"] = {"acknowledgementReference": None, **request["requestCommon"]}
    detail = request["requestDetail"]
    detail["declarationHeader"] = {"chargeReference": [1], **detail["declarationHeader"]}
    stored = charge_references.placed(sent, "C", "A")["simpleDeclarationRequest"]
    assert next(iter(stored["requestCommon"].items())) == ("acknowledgementReference", "A")
    assert next(iter(stored["requestDetail"]["declarationHeader"].items())) == ("chargeReference", "C")
    assert list(stored["requestDetail"]) == list(detail)
    assert request["requestCommon"]["acknowledgementReference"] is None
