import subprocess
import sys

import pytest

from shared.crash_point import EXIT_CODE

PROGRAM = """
from shared.crash_point import CrashPoint, arm, reached
arm({armed})
reached(CrashPoint.AFTER_CLAIM)
"""


@pytest.mark.parametrize(
    ("armed", "exit_code"),
    [
        ("None", 0),
        ("CrashPoint.AFTER_CLAIM", EXIT_CODE),
        ("CrashPoint.AFTER_UPLOAD", 0),
    ],
)
def test_a_process_dies_at_its_point_and_at_no_other(armed: str, exit_code: int) -> None:
    program = PROGRAM.format(armed=armed)
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == exit_code
