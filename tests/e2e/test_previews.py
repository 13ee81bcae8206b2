"""Previews from the worker that draws to the client that watches."""

import base64
import io

from PIL import Image

from tests.fixtures.live import Event, read_events
from tests.fixtures.stack import Stack


def test_a_client_sees_a_running_job_take_shape(stack: Stack) -> None:
    job = stack.submit(
        prompt="a large red star on a yellow background",
        sampler="ddpm",
        schedule="native",
        steps=1000,
        width=128,
        height=128,
    )
    previews: list[Event] = []
    url = job["links"]["events"] + "?previews=true"
    with stack.http.stream("GET", url, timeout=60) as answer:
        for event in read_events(answer.iter_lines()):
            if event.name == "preview":
                previews.append(event)
                if len(previews) == 3:
                    stack.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    assert event.name == "canceled"
    assert len(previews) >= 3
    iterations = [preview.data["iteration"] for preview in previews]
    assert iterations == sorted(set(iterations))
    for preview in previews:
        with Image.open(io.BytesIO(base64.b64decode(preview.data["data"]))) as image:
            assert (image.format, image.size) == ("WEBP", (128, 128))
    assert "preview_failed" not in stack.logs()
