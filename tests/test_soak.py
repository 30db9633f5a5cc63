"""`make soak`, shortened: faults at random moments, and nothing differs, nothing is left over, nothing hangs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import ROOT

pytestmark = pytest.mark.slow


def test_faults_at_random_moments_change_no_byte_and_leave_nothing(tmp_path: Path) -> None:
    out = tmp_path / "account.json"
    command = [sys.executable, "-m", "tests.support.soak", "--kills", "8", "--seconds", "60", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    account = json.loads(out.read_text())
    assert done.returncode == 0, account
    assert account["kills"] and not account["differing"] and not account["leftovers"] and not account["hangs"]
    if account["skipped"]:
        pytest.skip("; ".join(account["skipped"]))
