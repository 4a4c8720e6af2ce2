"""Kinds of variables of the environment: what each must look like. A fault is told without the value."""

import base64
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from app import callback_urls

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http or https URL")
    return url.rstrip("/")


def _origin(url: str) -> str:
    if urlsplit(_http_url(url)).path.strip("/"):
        raise ValueError("must be an origin, without a path")
    return _http_url(url)


def _keys(text: object) -> object:
    return text.split(",") if isinstance(text, str) else text


def _key(secret: SecretStr) -> SecretStr:
    try:
        size = len(base64.b64decode(secret.get_secret_value().strip(), validate=True))
    except ValueError as error:
        raise ValueError("must be standard base64 of 32 bytes") from error
    if size != 32:
        raise ValueError(f"must be standard base64 of 32 bytes, not of {size}")
    return secret


def _api_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(rf".+-{_UUID}-{_UUID}", key.get_secret_value()):
        raise ValueError("must be name-<service uuid>-<secret uuid>")
    return key


def _callback_tokens(token: SecretStr) -> SecretStr:
    tokens = token.get_secret_value().split(",")
    if not 1 <= len(tokens) <= 2 or any(len(one.strip()) < 32 for one in tokens):
        raise ValueError("must be one token, or two separated by a comma, of 32 characters at least")
    return token


def _delete_path(path: str) -> str:
    if path and "{claimId}" not in path:
        raise ValueError("must hold {claimId}")
    return path.strip("/")


_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)


def _duration(text: object) -> object:
    """Seconds of an ISO 8601 duration; what is none is left to the check for a number."""
    if not isinstance(text, str) or not text.strip().startswith("P"):
        return text
    found = _DURATION.fullmatch(text.strip())
    parts = {unit: float(number) for unit, number in found.groupdict().items() if number} if found else {}
    if not parts:
        raise ValueError("must be a number of seconds, or like P14D or PT36H (months and years have no fixed length)")
    return timedelta(**parts).total_seconds()


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone such as Europe/London") from error
    return name


def _file(path: str) -> str:
    if path and not Path(path).is_file():
        raise ValueError("is no file")
    return path


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Origin = Annotated[str, AfterValidator(_origin)]
Key = Annotated[SecretStr, AfterValidator(_key)]
Filled = Annotated[str, Field(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0, allow_inf_nan=False)]
File = Annotated[str, AfterValidator(_file)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Uuid = Annotated[str, Field(pattern=f"^{_UUID}$")]
Keys = Annotated[tuple[Key, ...], NoDecode, BeforeValidator(_keys), Field(min_length=1)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
CallbackTokens = Annotated[SecretStr, AfterValidator(_callback_tokens)]
CallbackHosts = Annotated[frozenset[str], NoDecode, BeforeValidator(callback_urls.hosts)]
DeletePath = Annotated[str, AfterValidator(_delete_path)]
