"""The same cases as in test_fuzz.py and test_fuzz_sets.py, and many more of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
NUM_CASES = 50_000


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_fifty_thousand_cases_meet_no_5xx_and_no_row_too_many() -> None:
    files = [str(FOLDER / name) for name in ("test_fuzz.py", "test_fuzz_sets.py")]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--timeout=600", *files],
        cwd=FOLDER.parents[1],
        env=os.environ | {"FUZZ_CASES": str(NUM_CASES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
