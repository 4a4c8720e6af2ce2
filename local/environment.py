"""The development environment in `var/dev.env`: made-up secrets, demo keys, and where everything listens."""

import base64
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox import credentials

HEADER = """\
# Made by `make up` for this machine only. Any variable set outside wins over this file.
# To start afresh, data and secrets: delete the folder var.
# For commands by hand: set -a; . var/dev.env; set +a; PATH=.venv/bin:$PATH
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where things listen. The sandbox takes three ports from `sandbox` on: login and control, Travel Pay, Notify."""

    web: int
    flower: int
    sandbox: int

    @property
    def all(self) -> dict[int, str]:
        """Every port with the variable that moves it."""
        taken = {self.web: "PORT", self.flower: "FLOWER_PORT"}
        return taken | {self.sandbox + number: "SANDBOX_PORT" for number in range(3)}


def ports(environment: Mapping[str, str] = os.environ) -> Ports:
    """The ports asked for. Raises ValueError that names the variable at fault."""
    return Ports(
        web=_port(environment, "PORT", 8000),
        flower=_port(environment, "FLOWER_PORT", 5555),
        sandbox=_port(environment, "SANDBOX_PORT", 8900),
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65_533:
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
        **credentials.Credentials().variables(),
        "DATA_KEYS": _key(),
        "HASH_KEY": _key(),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "FLOWER_BASIC_AUTH": f"demo:{secrets.token_urlsafe(12)}",
        "NOTIFY_CALLBACK_TOKEN": secrets.token_urlsafe(32),
    }


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _addresses(at: Ports, var: Path) -> dict[str, str]:
    sandbox = [f"http://127.0.0.1:{at.sandbox + number}" for number in range(3)]
    return {
        "HOST": "127.0.0.1",
        "PORT": str(at.web),
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_PORT": str(at.flower),
        "SANDBOX_PORT": str(at.sandbox),
        "SANDBOX_RECEIPTS_URL": f"http://127.0.0.1:{at.web}/callbacks/notify",
        "TRAVEL_PAY_AUTH_URL": sandbox[0],
        "TRAVEL_PAY_URL": f"{sandbox[1]}/eis/api/btsss/travelclaim",
        "NOTIFY_URL": sandbox[2],
        "PROMETHEUS_MULTIPROC_DIR": str(var / "metrics"),
        "RELEASE": "development",
        "STAGE": "local",
    }
