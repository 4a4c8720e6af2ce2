"""The development environment: secrets are made once, kept, private, and good enough for the real settings."""

import base64
import stat

import pytest

from local import environment

PORTS = environment.Ports(web=8000, flower=5555, sandbox=8900)


def test_what_was_written_is_read_back_and_only_the_owner_may_read_it(tmp_path):
    path = tmp_path / "dev.env"
    variables = {"PLAIN": "a+/=", "SPACED": "two words", "QUOTED": "it's $HOME", "EMPTY": ""}
    environment.write(path, variables)
    assert environment.read(path) == variables
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_writing_again_closes_a_file_that_was_open_to_others(tmp_path):
    path = tmp_path / "dev.env"
    path.touch(mode=0o644)
    environment.write(path, {"NAME": "value"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_file_means_nothing_known(tmp_path):
    assert environment.read(tmp_path / "dev.env") == {}


def test_secrets_are_kept_and_addresses_follow_the_ports(tmp_path):
    first = environment.complete({}, PORTS, tmp_path)
    moved = environment.Ports(web=8001, flower=5556, sandbox=9900)
    second = environment.complete(first, moved, tmp_path)
    assert {name for name in first if first[name] != second[name]} == {
        "PORT",
        "FLOWER_PORT",
        "SANDBOX_PORT",
        "SANDBOX_RECEIPTS_URL",
        "TRAVEL_PAY_AUTH_URL",
        "TRAVEL_PAY_URL",
        "NOTIFY_URL",
        "MDG_URL",
        "IMOVO_URL",
    }


def test_the_addresses_are_those_the_sandbox_listens_on(tmp_path):
    found = environment.complete({}, PORTS, tmp_path)
    urls = {name: value for name, value in found.items() if value.startswith("http://") and name.endswith("_URL")}
    assert urls == {
        "SANDBOX_RECEIPTS_URL": "http://127.0.0.1:8000/callbacks/notify",
        "TRAVEL_PAY_AUTH_URL": "http://127.0.0.1:8900",
        "TRAVEL_PAY_URL": "http://127.0.0.1:8901/eis/api/btsss/travelclaim",
        "NOTIFY_URL": "http://127.0.0.1:8902",
        "MDG_URL": "http://127.0.0.1:8903",
        "IMOVO_URL": "http://127.0.0.1:8904",
    }
    assert found["MDG_BEARER_TOKEN"]
    assert found["IMOVO_API_KEY"]


def test_secrets_differ_between_machines_and_keys_have_their_size(tmp_path):
    one, other = (environment.complete({}, PORTS, tmp_path) for _ in range(2))
    for name in ("DATA_KEYS", "HASH_KEY", "SECRET_KEY", "FLOWER_BASIC_AUTH", "NOTIFY_CALLBACK_TOKEN"):
        assert one[name] != other[name]
    assert [len(base64.b64decode(one[name], validate=True)) for name in ("DATA_KEYS", "HASH_KEY")] == [32, 32]


def test_every_port_is_known_with_the_variable_that_moves_it():
    assert PORTS.all == {
        8000: "PORT",
        5555: "FLOWER_PORT",
        8900: "SANDBOX_PORT",
        8901: "SANDBOX_PORT",
        8902: "SANDBOX_PORT",
        8903: "SANDBOX_PORT",
        8904: "SANDBOX_PORT",
    }


@pytest.mark.parametrize("text", ["http", "0", "-1", "65536"])
def test_a_port_that_is_none_names_its_variable(text):
    with pytest.raises(ValueError, match="FLOWER_PORT"):
        environment.ports({"FLOWER_PORT": text})


def test_an_empty_port_variable_means_the_default():
    assert environment.ports({"PORT": ""}) == PORTS
