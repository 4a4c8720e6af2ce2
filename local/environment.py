"""The development environment in `var/dev.env`: made-up secrets, demo keys, and where everything listens."""

import base64
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox import Credentials, Sandbox

HEADER = """\
# Made by `make up` for this machine only. Any variable set outside wins over this file.
# To start afresh, data and secrets: delete the folder var.
# For commands by hand: set -a; . var/dev.env; set +a; PATH=.venv/bin:$PATH
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where things listen. The sandbox takes one port per upstream from `sandbox` on; the first has the control too."""

    web: int
    flower: int
    sandbox: int

    @property
    def all(self) -> dict[int, str]:
        """Every port with the variable that moves it."""
        taken = {self.web: "PORT", self.flower: "FLOWER_PORT"}
        return taken | {one.port: "SANDBOX_PORT" for one in Sandbox(port=self.sandbox).listeners.values()}


def ports(environment: Mapping[str, str] = os.environ) -> Ports:
    """The ports asked for. Raises ValueError that names the variable at fault."""
    return Ports(
        web=_port(environment, "PORT", 8000),
        flower=_port(environment, "FLOWER_PORT", 5555),
        sandbox=_port(environment, "SANDBOX_PORT", 8900),
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65_532:
        raise ValueError(f"{name} must be a port number, not {text!r}")
    return int(text)


def read(path: Path) -> dict[str, str]:
    """The variables of a file of `NAME=value` lines, quoted as for a shell; none when there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    words = [word for line in lines for word in shlex.split(line, comments=True)]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Replace the file in one go; nobody else may read it."""
    text = HEADER + "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def complete(known: Mapping[str, str], at: Ports, var: Path) -> dict[str, str]:
    """What is known already, with every missing secret made, and the addresses of this run."""
    return {**_secrets(), **known, **_addresses(at, var)}


def _secrets() -> dict[str, str]:
    return {
        **Credentials().variables(),
        "DATA_KEYS": _key(),
        "HASH_KEY": _key(),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "FLOWER_BASIC_AUTH": f"demo:{secrets.token_urlsafe(12)}",
        "NOTIFY_CALLBACK_TOKEN": secrets.token_urlsafe(32),
    }


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _addresses(at: Ports, var: Path) -> dict[str, str]:
    return {
        **Sandbox(port=at.sandbox).addresses(),
        "HOST": "127.0.0.1",
        "PORT": str(at.web),
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_PORT": str(at.flower),
        "SANDBOX_PORT": str(at.sandbox),
        "SANDBOX_RECEIPTS_URL": f"http://127.0.0.1:{at.web}/callbacks/notify",
        "PROMETHEUS_MULTIPROC_DIR": str(var / "metrics"),
        "RELEASE": "development",
        "STAGE": "DEV",
    }
