"""The table of what covers the travel-claims contract tells the truth."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs/coverage-claims.md").read_text()
NAMED = sorted(set(re.findall(r"`tests/([\w/]+\.py)::(\w+)`", TEXT)))
SECTIONS = (
    *(f"2.{number}" for number in range(1, 11)),
    *(f"3.{number}" for number in range(1, 4)),
    *(f"4.{number}" for number in range(1, 9)),
    *(f"5.{number}" for number in range(1, 8)),
    *("6", "7", "8", "9"),
    *(f"10.{number}" for number in range(1, 7)),
)


@cache
def functions(path: str) -> frozenset[str]:
    """The test functions of a file, as its source has them."""
    file = TESTS / path
    tree = ast.parse(file.read_text()) if file.exists() else ast.Module(body=[], type_ignores=[])
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_is_named_exists(path: str, name: str) -> None:
    assert name in functions(path)


def test_every_section_of_the_contract_has_its_table_with_rows() -> None:
    found = dict(
        re.findall(r"^## ([\d.]+) [^\n]*\n\n\| row \| tests \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    )
    assert tuple(found) == SECTIONS


def test_every_row_names_a_test() -> None:
    tables = TEXT.split("## Not covered")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and line != "| row | tests |"]
    assert len(rows) > 150
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::test_\w+`", row)] == []


def test_what_is_not_covered_says_why() -> None:
    rows = TEXT.split("## Not covered")[1].strip().splitlines()[2:]
    assert rows
    assert all(len([cell for cell in row.strip("|").split("|") if cell.strip()]) == 2 for row in rows)
