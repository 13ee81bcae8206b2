"""Every code block of the documentation runs, in the order in which a reader meets it."""

import json
import re
import signal
from pathlib import Path

import pytest

from shared.catalog import Catalog
from tests.docs.reader import DRAWN, HOW_TO, OPERATIONS, PAGES, ROOT, Block, Reader, blocks_of
from tests.fixtures.stack import Stack, free_port, wait_until

#: What a worker logs when models change places.
MOVES = {"model_loaded", "model_evicted"}


def test_every_make_target_in_the_docs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert f"\n{target}: " in makefile, f"{page}: make {target}"


def test_the_readme_does_what_it_says(reader: Reader) -> None:
    make, up, *rest = blocks_of(ROOT / "README.md")
    assert make.is_make
    text = up.text.replace("latentq up", f"latentq up --port {free_port()}")
    connection = reader.folder / ".latentq" / "connection.json"
    with reader.running(text) as process:
        wait_until(connection.exists, timeout_s=60)
        for block in rest:
            if block.language not in DRAWN:
                reader.run(block)
    assert process.returncode == 130
    assert len(list((reader.folder / "pictures").iterdir())) == 1
    assert (reader.folder / "heart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_job_starts_from_a_picture_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("start-from-a-picture.md", stack)
    assert len(list((reader.folder / "redrawn").iterdir())) == 1
    assert (reader.folder / "inpainted.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_adapters_are_used_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("use-a-lora.md", stack)
    drawn = [next((reader.folder / name).iterdir()) for name in ("gray", "paler")]
    pictures = {path.read_bytes() for path in (*drawn, reader.folder / "brighter.png")}
    assert len(pictures) == 3


@pytest.mark.slow
def test_the_demo_models_are_used_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("use-the-demo-models.md", stack)
    assert len(list((reader.folder / "labels").iterdir())) == 2
    assert len(list(reader.folder.glob("star-*.png"))) == 4


@pytest.mark.slow
def test_sounds_are_made_as_the_page_says(reader: Reader, sounding: Stack) -> None:
    reader.follow("make-sounds.md", sounding)
    (sound,) = (reader.folder / "sounds").iterdir()
    assert sound.read_bytes().startswith(b"fLaC")
    assert (reader.folder / "clicks.wav").read_bytes().startswith(b"RIFF")
    assert (reader.folder / "clicks.webp").read_bytes()[8:12] == b"WEBP"


@pytest.mark.slow
def test_webhooks_are_received_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("receive-webhooks.md", stack)


@pytest.mark.slow
def test_keys_are_made_limited_and_revoked_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("keys-and-limits.md", stack)


@pytest.mark.slow
def test_the_tutorial_leads_where_it_says(reader: Reader, stack: Stack) -> None:
    up, *rest = blocks_of(ROOT / "docs" / "tutorial" / "first-job.md")
    assert up.text.endswith("latentq up\n")  # as the README's, and as the stack was started
    (reader.folder / ".latentq").symlink_to(stack.data_dir)
    for block in rest:
        reader.run(block)
    assert len(list((reader.folder / "pictures").iterdir())) == 2
    assert len(list((reader.folder / "sweep").glob("*.png"))) == 6
    assert (reader.folder / "heart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_client_is_used_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("use-the-python-client.md", stack)
    assert len(list((reader.folder / "colors").iterdir())) == 2
    assert len(list((reader.folder / "sweep" / "heun").iterdir())) == 2


@pytest.mark.slow
def test_settings_are_compared_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("presets-and-sweeps.md", stack)
    assert len(list((reader.folder / "drafts").iterdir())) == 1
    for name in ("dpmpp_2m-5", "dpmpp_2m-10"):
        assert (reader.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_client_of_openai_is_used_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("use-the-openai-client.md", stack)
    for name in ("star-0", "star-1", "blue"):
        assert (reader.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_client_of_replicate_is_used_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("use-the-replicate-client.md", stack)
    assert (reader.folder / "star-0.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_jobs_are_polled_and_streamed_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.follow("poll-and-stream.md", stack)
    assert (reader.folder / "seen.txt").read_text().endswith("succeeded\n")


@pytest.mark.slow
def test_workers_are_added_as_the_page_says(reader: Reader, stack: Stack) -> None:
    up, worker = blocks_of(HOW_TO / "add-workers.md")
    data_dir = reader.folder / ".latentq"
    with reader.running(up.text.replace("latentq up", f"latentq up --port {free_port()}")):
        wait_until((data_dir / "connection.json").exists, timeout_s=60)
        assert '"worker-2"' in (data_dir / "connection.json").read_text()

    variables = stack.variables()
    *exports, command = worker.text.strip().splitlines()
    exported = set(re.findall(r"LATENTQ_\w+", " ".join(exports)))
    # What the page leaves out has a default.
    defaults = {
        "LATENTQ_S3_REGION", "LATENTQ_LEASE_S", "LATENTQ_WARM_MODELS",
        "LATENTQ_WEBHOOK_ALLOW_LOOPBACK",
    }  # fmt: skip
    assert set(variables) - exported <= defaults
    reader.environment |= variables
    reader.run(Block(worker.page, "sh", "\n".join(exports)))
    log = reader.folder / "log"
    with reader.running(f"{command} 2> {log}", stop=signal.SIGTERM) as process:
        wait_until(lambda: log.exists() and " ready." in log.read_text(), timeout_s=60)
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_several_models_are_served_as_the_page_says(reader: Reader) -> None:
    write, up, ask = blocks_of(HOW_TO / "serve-several-models.md")
    reader.run(write)
    connection = reader.folder / ".latentq" / "connection.json"
    with reader.running(up.text.replace("latentq up", f"latentq up --port {free_port()}")):
        wait_until(connection.exists, timeout_s=100)
        reader.run(ask, timeout_s=200)  # a worker may take long to be there
    assert len(list((reader.folder / "pictures").iterdir())) == 2
    log = (reader.folder / ".latentq" / "logs" / "worker-1.log").read_text()
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [(e["event"], e["model"]) for e in events if e["event"] in MOVES] == [
        ("model_loaded", "first"), ("model_evicted", "first"), ("model_loaded", "second"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_demo_model_is_trained_as_the_page_says(reader: Reader) -> None:
    train, judge = blocks_of(HOW_TO / "train-the-demo-model.md")
    few = " --vae-steps 2 --reading-steps 50 --drawing-steps 2 --arranging-steps 1"
    reader.run(Block(train.page, "sh", train.text.rstrip() + few), timeout_s=600)
    work = reader.folder / ".train" / "demo"
    assert (work / "model" / "model_index.json").exists()
    assert (work / "model" / "preview.json").exists()
    assert (work / "reading.png").read_bytes().startswith(b"\x89PNG")
    reader.run(Block(judge.page, "sh", judge.text.rstrip() + " --quick"), timeout_s=1_200)
    assert json.loads((reader.folder / "adherence.json").read_text())["guidance"]


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_audio_model_is_trained_as_the_page_says(reader: Reader) -> None:
    train, judge = blocks_of(HOW_TO / "train-the-audio-model.md")
    few = " --autoencoder-steps 2 --reading-steps 50 --playing-steps 2"
    reader.run(Block(train.page, "sh", train.text.rstrip() + few), timeout_s=600)
    work = reader.folder / ".train" / "demo-audio"
    assert (work / "model" / "model_index.json").exists()
    assert (work / "reading.png").read_bytes().startswith(b"\x89PNG")
    reader.run(Block(judge.page, "sh", judge.text.rstrip() + " --quick"), timeout_s=1_200)
    assert json.loads((reader.folder / "adherence.json").read_text())["guidance"]
    assert (reader.folder / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_on_reliability_has_the_figures_of_the_last_run() -> None:
    pages = [
        (ROOT / "docs" / name).read_text() for name in ("reliability.md", "reference/recovery.md")
    ]
    told, measured = (re.findall(r"^(\| [^|]+\|(?: \d+\.\d+ \|){2})", page, re.M) for page in pages)
    assert told == [row for row in measured if not row.startswith(("| well", "| frozen"))]
    assert told


def test_device_options_are_set_as_the_page_says(tmp_path: Path) -> None:
    (options,) = blocks_of(HOW_TO / "device-options.md")
    shipped = (ROOT / "models" / "catalog.toml").read_text()
    entries = shipped.replace('path = "', f'path = "{ROOT}/models/')
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(f"{entries}\n{options.text}")
    assert Catalog.load(catalog).models["demo"].device_options.changed() == {
        "dtype": "bfloat16",
        "channels_last": True,
        "attention": "eager",
    }


def test_no_page_has_a_block_that_nobody_runs() -> None:
    pages = (
        "add-workers.md",
        "device-options.md",
        "poll-and-stream.md",
        "keys-and-limits.md",
        "make-sounds.md",
        "presets-and-sweeps.md",
        "receive-webhooks.md",
        "serve-several-models.md",
        "start-from-a-picture.md",
        "train-the-audio-model.md",
        "train-the-demo-model.md",
        "use-a-lora.md",
        "use-the-demo-models.md",
        "use-the-openai-client.md",
        "use-the-replicate-client.md",
        "use-the-python-client.md",
    )
    tutorial = ROOT / "docs" / "tutorial" / "first-job.md"
    run = {ROOT / "README.md", tutorial, *(HOW_TO / page for page in pages)}
    run.add(OPERATIONS / "sizing.md")
    # Without Docker and Kubernetes these are only read, by tests/deploy/test_operations.py.
    run |= {OPERATIONS / page for page in ("deploy-on-kubernetes.md", "deploy-with-compose.md")}
    # By tests/e2e/test_tls.py.
    run.add(OPERATIONS / "network.md")
    run |= {OPERATIONS / page for page in ("maintenance.md", "backup.md", "keys.md")}
    with_blocks = {page for page in PAGES if any(b.language not in DRAWN for b in blocks_of(page))}
    assert with_blocks == run


def test_every_link_inside_the_repository_leads_somewhere() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
