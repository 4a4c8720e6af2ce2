"""Which URLs may get callbacks: contract 2.2 and 6, and what two parsers could read differently."""

import pytest

from app import callback_urls

HOSTS = callback_urls.hosts("hooks.example, other.example:8443, [2001:db8::1]")
ASSERTED = frozenset({"hooks.example", "other.example:8443", "[2001:db8::1]"})
NOT_ALLOWED = "callback-url-not-allowed"


def refusal(url: str, *, insecure: bool = False) -> str | None:
    return callback_urls.refusal(url, ASSERTED, insecure=insecure)


def test_the_list_is_read_without_the_default_port() -> None:
    assert HOSTS == ASSERTED
    assert callback_urls.hosts("hooks.example:443,,") == {"hooks.example"}
    assert callback_urls.hosts("") == frozenset()


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example",
        "https://hooks.example/",
        "https://hooks.example:443/travel?client=1&sig=a%20b",
        "HTTPS://Hooks.Example/travel",
        "https://other.example:8443/",
        "https://[2001:db8::1]/",
    ],
)
def test_a_host_of_the_list_may_be_called(url: str) -> None:
    assert refusal(url) is None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://hooks.example/", "not-https"),
        ("ftp://hooks.example/", "not-https"),
        ("hooks.example/travel", "not-https"),
        ("", "not-https"),
        ("https://[broken", "not-https"),
        ("https:/hooks.example/", NOT_ALLOWED),
        ("https://foreign.example/", NOT_ALLOWED),
        ("https://sub.hooks.example/", NOT_ALLOWED),
        ("https://hooks.example.evil.example/", NOT_ALLOWED),
        ("https://hooks.example:8443/", NOT_ALLOWED),
        ("https://hooks.example:80/", NOT_ALLOWED),
        ("https://other.example/", NOT_ALLOWED),
        ("https://hooks.example:99999/", NOT_ALLOWED),
        ("https://user@hooks.example/", NOT_ALLOWED),
        ("https://user:word@hooks.example/", NOT_ALLOWED),
        ("https://@hooks.example/", NOT_ALLOWED),
        ("https://hooks.example/#part", NOT_ALLOWED),
        ("https://hooks.example/#", NOT_ALLOWED),
        ("https://hooks.example./", NOT_ALLOWED),
        ("https://hooks.example\\@evil.example/", NOT_ALLOWED),
        ("https://evil.example\\.hooks.example/", NOT_ALLOWED),
        ("https://hooks.example\t/", NOT_ALLOWED),
        ("https://hooks.example/ a", NOT_ALLOWED),
        ("https://hooks.example/\r\nX-Injected: 1", NOT_ALLOWED),
        ("https://hooks.example/\n", NOT_ALLOWED),
        ("https://höoks.example/", NOT_ALLOWED),
        ("https://hooks.example/ü", NOT_ALLOWED),
        ("https://hooks%2eexample/", NOT_ALLOWED),
    ],
)
def test_anything_else_is_refused_by_its_code(url: str, code: str) -> None:
    assert refusal(url) == code


def test_http_passes_where_tests_ask_for_it_but_no_foreign_host_does() -> None:
    assert refusal("http://hooks.example/", insecure=True) is None
    assert refusal("http://hooks.example:80/", insecure=True) is None
    assert refusal("http://other.example:8443/", insecure=True) is None
    assert refusal("http://hooks.example:8080/", insecure=True) == NOT_ALLOWED
    assert refusal("http://foreign.example/", insecure=True) == NOT_ALLOWED
    assert refusal("ftp://hooks.example/", insecure=True) == "not-https"
