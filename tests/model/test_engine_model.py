"""The protocol's exhaustive model: it holds, and each rule left out breaks it."""

import subprocess
import sys
from pathlib import Path


def test_the_protocol_holds_and_every_rule_is_needed() -> None:
    model = Path(__file__).with_name("engine_model.py")
    told = subprocess.run([sys.executable, str(model)], capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == 0, told.stdout
    assert told.stdout.startswith("protocol, all rules: I1-I6 hold")
