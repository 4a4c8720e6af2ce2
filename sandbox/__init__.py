"""Upstreams that speak the contracts from memory, with fault switches and a ledger of effects."""

from sandbox.credentials import Credentials
from sandbox.sandbox import Sandbox, serve
from sandbox.settings import Receipts, Settings

__all__ = ["Credentials", "Receipts", "Sandbox", "Settings", "serve"]
