"""How error bodies are read: five shapes, one sentence (contract 4.5)."""

import json

import pytest

from app.upstreams import answers


def answer(body, status=400, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answers.Answer(status, headers, raw, "Told")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"success": False, "message": "Claim not found", "data": None}, ("Claim not found", "")),
        (
            {"success": False, "message": "Bad Request", "data": ["One is wrong.", "Two is wrong."]},
            ("Bad Request: One is wrong.; Two is wrong.", ""),
        ),
        ({"data": ["Only this."]}, ("Only this.", "")),
        ({"error": "invalid_client", "error_description": "Who are you?"}, ("Who are you?", "invalid_client")),
        ({"error": {"code": "CLAIM_NOT_FOUND", "message": "No claim"}}, ("No claim", "CLAIM_NOT_FOUND")),
        ({"errors": [{"error": {"code": "A_1", "message": "Nested"}}]}, ("Nested", "A_1")),
        ({"errors": [{"code": "A_2", "message": "Flat"}]}, ("Flat", "A_2")),
        (
            {
                "status_code": 403,
                "errors": [{"error": "AuthError", "message": "Error: Your system clock must be right"}],
            },
            ("Error: Your system clock must be right", "AuthError"),
        ),
        (b"  Service\n unavailable ", ("Service unavailable", "")),
        (b"<h1>Bad Gateway</h1>", ("<h1>Bad Gateway</h1>", "")),
        ("a text", ("a text", "")),
        (b"", ("Told", "")),
        ({"veteran": "Sample Name"}, ("Told", "")),
        ([1], ("Told", "")),
        ({"message": 7, "data": 5, "error": None, "errors": "x"}, ("Told", "")),
        ({"message": "For 1012667122V019349"}, ("For [removed]", "")),
    ],
)
def test_every_shape_of_an_error_gives_one_sentence(body, said):
    assert answers.said(answer(body)) == said


def test_an_answer_without_a_reason_phrase_has_that_of_its_status():
    assert answers.said(answers.Answer(503, {}, b""))[0] == "Service Unavailable"
    assert answers.said(answers.Answer(599, {}, b""))[0] == "HTTP 599"


def test_what_is_not_json_is_none():
    assert answer(b"{").json is None
    assert answer(b"\xff").json is None
