"""Sounds from the outside: a job over HTTP, and what the command line and the client make of it."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import soundfile

from latentq_client import Client
from tests.fixtures.stack import JsonObject, Stack, wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("output_format", ["wav", "flac"])
def test_a_job_makes_a_file_that_a_library_reads(sounding: Stack, output_format: str) -> None:
    job = sounding.submit(
        prompt="two low clicks", duration_s=0.5, output_format=output_format, determinism="exact"
    )
    (done,) = sounding.wait([job["id"]])
    assert done["status"] == "succeeded", done["error"]
    (made,) = done["artifacts"]
    data = httpx.get(made["url"]).raise_for_status().content
    assert hashlib.sha256(data).hexdigest() == made["sha256"]
    with soundfile.SoundFile(io.BytesIO(data)) as opened:
        assert opened.format == output_format.upper()
        assert opened.frames == 0.5 * made["sample_rate"]
        assert json.loads(opened.comment)["request"]["prompt"] == "two low clicks"
    assert done["execution"]["gains"]
    small = httpx.get(made["thumbnail_url"]).raise_for_status()
    assert small.headers["Content-Type"] == "image/webp"
    again = sounding.submit(**done["request"])
    (same,) = sounding.wait([again["id"]])
    assert same["artifacts"][0]["sha256"] == made["sha256"]


def test_an_estimate_knows_what_a_sound_takes(sounding: Stack) -> None:
    def ask() -> JsonObject:
        body = {"prompt": "noise", "duration_s": 0.5}
        found: JsonObject = sounding.http.post("/v1/estimates", json=body).json()
        assert found["request"]["duration_s"] == 0.5
        return found

    # As soon as the worker has told what it measured.
    assert wait_until(lambda: ask()["cost"]["predicted_s"], timeout_s=60) > 0


def test_the_command_line_and_the_client_save_sounds(sounding: Stack, tmp_path: Path) -> None:
    url, key = (sounding.connection[name] for name in ("base_url", "api_key"))
    command = [sys.executable, "-m", "cli.main"]
    options = ["--duration", "0.25", "--url", url, "--api-key", key, "--output", str(tmp_path)]
    subprocess.run([*command, "submit", "noise", *options], check=True, timeout=60)
    (saved,) = tmp_path.glob("*.wav")
    assert soundfile.info(saved).frames == 1_000
    sweep = [*options[2:-1], str(tmp_path / "sweep"), "--steps", "3,5"]
    subprocess.run([*command, "sweep", "noise", *sweep], check=True, timeout=60)
    page = (tmp_path / "sweep" / "index.html").read_text()
    assert page.count("<audio controls") == 2
    with Client(url, key) as client:
        job = client.generate("noise", duration_s=0.25, timeout=60)
        (made,) = job.artifacts
        assert made.is_sound
        assert (made.duration_s, made.sample_rate) == (0.25, 4_000)
        assert client.download(made, thumbnail=True)[8:12] == b"WEBP"
