"""Kinds of variables of the environment: what each must look like. A fault is told without the value."""

import base64
import re
from typing import Annotated
from urllib.parse import urlsplit

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


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Origin = Annotated[str, AfterValidator(_origin)]
Key = Annotated[SecretStr, AfterValidator(_key)]
Filled = Annotated[str, Field(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0)]
Uuid = Annotated[str, Field(pattern=f"^{_UUID}$")]
Keys = Annotated[tuple[Key, ...], NoDecode, BeforeValidator(_keys), Field(min_length=1)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
CallbackTokens = Annotated[SecretStr, AfterValidator(_callback_tokens)]
CallbackHosts = Annotated[frozenset[str], NoDecode, BeforeValidator(callback_urls.hosts)]
DeletePath = Annotated[str, AfterValidator(_delete_path)]
