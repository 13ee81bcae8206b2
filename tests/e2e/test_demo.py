"""`make demo` after its installation."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from cli.demo.jobs import JOBS
from tests.fixtures.stack import processes_of


def test_the_demo_draws_everything_and_leaves_only_pictures(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "cli.demo"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("succeeded") == 2 * len(JOBS)  # its line and its row of the table
    output = tmp_path / "demo-output"
    pictures = [path for path in output.glob("*.png") if path.name != "contact-sheet.png"]
    assert len(pictures) == len(JOBS) + 1  # one job makes two
    with Image.open(output / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    assert all(path.name in (output / "index.html").read_text() for path in pictures)
    left = [path.name for path in temporary.iterdir()]
    assert not [name for name in left if name.startswith("latentq")]
    assert processes_of(temporary) == []
