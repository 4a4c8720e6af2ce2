"""Notify's bearer: a JWT that the caller signs itself (HS256), good for 30 seconds around its `iat`."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any

LEEWAY = 30


def problem_with(authorization: str | None, service_id: str, secret: str) -> tuple[int, str] | None:
    """Status and message to refuse with; None for a good token."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme != "Bearer" or not token:
        return 401, "Unauthorized: authentication token must be provided"
    try:
        signed, _, signature = token.rpartition(".")
        head, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        sent = _decoded(signature)
    except (ValueError, binascii.Error):
        return 403, "Invalid token: signature, api token is not valid"
    if not isinstance(head, dict) or head.get("alg") != "HS256" or not isinstance(claims, dict):
        return 403, "Invalid token: algorithm used is not HS256"
    expected = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return _problem_with_claims(claims, service_id, is_signed=hmac.compare_digest(sent, expected))


def _problem_with_claims(claims: dict[str, Any], service_id: str, *, is_signed: bool) -> tuple[int, str] | None:
    if claims.get("iss") != service_id:
        return 403, "Invalid token: service not found"
    if not is_signed:
        return 403, "Invalid token: API key not found"
    issued = claims.get("iat")
    if not isinstance(issued, int | float) or abs(time.time() - issued) > LEEWAY:
        return 403, f"Error: Your system clock must be accurate to within {LEEWAY} seconds"
    return None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
