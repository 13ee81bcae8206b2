"""The command line as a user has it, against a running system."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.fixtures.pictures import picture
from tests.fixtures.receiver import run_receiver, status
from tests.fixtures.stack import Stack, free_port, wait_until

PROMPT = "a large red star on a yellow background"
NO_DATABASE = {"LATENTQ_DATABASE_URL": f"postgresql://x:x@127.0.0.1:{free_port()}/x"}


class Shell:
    """Runs `latentq` in a folder of its own with the variables of a client."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._folder = folder
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "LATENTQ_URL": stack.connection["base_url"],
            "LATENTQ_API_KEY": stack.connection["api_key"],
        }

    def run(self, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [Path(sys.executable).with_name("latentq"), *arguments],
            cwd=self._folder,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Run a command with `--json` and read all that it prints."""
        ended = self.run(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture
def shell(stack: Stack, tmp_path: Path) -> Shell:
    return Shell(stack, tmp_path)


def test_submit_saves_what_it_made(shell: Shell, tmp_path: Path) -> None:
    arguments = ("--steps", "3", "--num-outputs", "2", "--sampler", "euler", "--seed", "7")
    ended = shell.run("submit", PROMPT, *arguments, "--output", "pictures")
    assert ended.returncode == 0, ended.stderr
    assert "succeeded" in ended.stdout
    assert "euler on native, 3 steps" in ended.stdout
    files = sorted((tmp_path / "pictures").iterdir())
    assert len(files) == 2
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_submit_starts_from_pictures_and_the_same_ones_again_are_the_same_job(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture("JPEG"))
    (tmp_path / "mask.png").write_bytes(picture())
    command = ("submit", PROMPT, "--steps", "10", "--init-image", "photo.jpg", "--mask", "mask.png")
    command += ("--strength", "0.3", "--sampler", "ddim", "--idempotency-key", "redraw-1", "--wait")
    job = shell.json(*command)
    assert job["request"]["init_image"] != job["request"]["mask"]
    assert job["progress"]["iteration"] == job["progress"]["iterations"] == 3
    assert shell.json(*command)["id"] == job["id"]
    shown = shell.run("get", job["id"]).stdout
    assert "at strength 0.3" in shown
    assert "is white" in shown


def test_a_job_can_be_followed_by_its_id(shell: Shell) -> None:
    job_id = shell.json("submit", PROMPT, "--steps", "3", "--metadata", "order=7")["id"]
    (watched,) = shell.json("watch", job_id)
    assert watched["status"] == "succeeded"
    assert shell.json("get", job_id)["metadata"] == {"order": "7"}
    assert job_id in [job["id"] for job in shell.json("ls", "--status", "succeeded")]
    listed = shell.run("ls", "--limit", "1")
    assert len(listed.stdout.splitlines()) == 2
    refused = shell.run("cancel", job_id)
    assert refused.returncode == 4


def test_cancel_ends_a_job_and_its_watch_says_so(shell: Shell) -> None:
    job_id = shell.json("submit", PROMPT, "--sampler", "ddpm", "--steps", "1000")["id"]
    shell.json("cancel", job_id)
    watched = shell.run("watch", job_id)
    assert watched.returncode == 1
    assert "canceled" in watched.stderr


def test_retry_runs_a_job_again_and_get_tells_of_its_runs(shell: Shell) -> None:
    job_id = shell.json("submit", PROMPT, "--sampler", "euler", "--steps", "900")["id"]
    shell.json("cancel", job_id)
    shell.run("watch", job_id)
    again = shell.json("retry", job_id, "--idempotency-key", f"again-{job_id}")
    assert again["id"] != job_id
    assert again["retry_of"] == job_id
    assert again["request"]["steps"] == 900
    repeated = shell.json("retry", job_id, "--idempotency-key", f"again-{job_id}")
    assert repeated["id"] == again["id"]

    def is_running() -> bool:
        return bool(shell.json("get", again["id"])["status"] == "running")

    wait_until(is_running)
    (attempt,) = shell.json("get", again["id"], "--attempts")
    assert attempt["attempt"] == 1
    assert attempt["outcome"] is None
    shown = shell.run("get", again["id"], "--attempts").stdout
    assert attempt["worker"] in shown
    shell.json("cancel", again["id"])


def test_a_job_that_has_ended_can_be_deleted(shell: Shell) -> None:
    job_ids = [shell.json("submit", PROMPT, "--steps", "2", "--wait")["id"] for _ in range(2)]
    assert shell.run("rm", job_ids[0]).stdout == f"deleted {job_ids[0]}\n"
    assert shell.json("rm", job_ids[1]) == {"deleted": [job_ids[1]]}
    for job_id in job_ids:
        assert shell.run("get", job_id).returncode == 4
        assert shell.run("rm", job_id).returncode == 4


def test_a_receiver_is_told_and_told_again(shell: Shell, stack: Stack) -> None:
    with run_receiver() as receiver:
        receiver.script = [status(410)]
        job_id = stack.submit(prompt=PROMPT, steps=2, webhook={"url": receiver.url})["id"]

        def read(wanted: str) -> Any:
            found = shell.json("webhooks", "ls", "--job", job_id)
            return next((delivery for delivery in found if delivery["status"] == wanted), None)

        delivery = wait_until(lambda: read("dead"), timeout_s=60)
        assert "gone 410" in shell.run("webhooks", "ls").stdout
        assert shell.json("webhooks", "redeliver", delivery["id"])["status"] == "pending"
        delivery = wait_until(lambda: read("delivered"), timeout_s=30)
        verifier = Webhook(stack.connection["webhook_secret"])
        for received in receiver.received:
            assert received.headers["webhook-id"] == delivery["event_id"]
            assert verifier.verify(received.body, received.headers)["data"]["id"] == job_id
    assert shell.run("webhooks", "redeliver", "dlv_none").returncode == 4


def test_an_endpoint_is_registered_tried_paused_and_removed(shell: Shell) -> None:
    with run_receiver() as receiver:
        made = shell.json("webhooks", "endpoints", "add", receiver.url, "--event", "job.failed")
        endpoint_id = made["id"]
        assert made["events"] == ["job.failed"]
        again = shell.run("webhooks", "endpoints", "add", receiver.url)
        assert again.returncode == 4
        assert endpoint_id in again.stderr
        rotated = shell.run("webhooks", "endpoints", "rotate", endpoint_id).stdout.strip()
        receiver.script = [status(410)]
        assert shell.json("webhooks", "endpoints", "test", endpoint_id)["type"] == "endpoint.test"

        def find_state() -> Any:
            (found,) = shell.json("webhooks", "endpoints", "ls")
            return found["disabled_reason"]

        wait_until(lambda: find_state() == "gone", timeout_s=30)
        assert f"{endpoint_id}  gone " in shell.run("webhooks", "endpoints", "ls").stdout
        assert shell.run("webhooks", "endpoints", "test", endpoint_id).returncode == 4
        assert shell.json("webhooks", "endpoints", "enable", endpoint_id)["enabled"]
        (received,) = receiver.received
        for secret in (made["secret"], rotated):
            assert Webhook(secret).verify(received.body, received.headers)
        (delivery,) = shell.json("webhooks", "ls", "--endpoint", endpoint_id)
        assert delivery["event_id"] == received.headers["webhook-id"]
    assert shell.run("webhooks", "endpoints", "rm", endpoint_id).returncode == 0
    assert shell.json("webhooks", "endpoints", "ls") == []


def test_the_same_key_again_is_the_same_job(shell: Shell) -> None:
    command = ("submit", PROMPT, "--steps", "2", "--idempotency-key", "order-7")
    assert shell.json(*command)["id"] == shell.json(*command)["id"]


def test_a_sweep_is_laid_out_on_a_page(shell: Shell, tmp_path: Path) -> None:
    command = ("sweep", PROMPT, "--samplers", "euler,lcm", "--steps", "2,3", "--seeds", "7")
    refused = shell.run(*command)
    assert refused.returncode == 4
    assert "#/samplers/1: lcm needs a distilled model" in refused.stderr
    swept = shell.json(*command, "--skip-invalid", "--output", "sheet")
    assert [one["coordinates"]["steps"] for one in swept["data"]] == [2, 3]
    assert {one["status"] for one in swept["data"]} == {"succeeded"}
    assert [one["coordinates"]["sampler"] for one in swept["skipped"]] == ["lcm", "lcm"]
    page = (tmp_path / "sheet" / "index.html").read_text()
    for one in swept["data"]:
        assert f'<img src="{one["id"]}-0.png"' in page
        assert (tmp_path / "sheet" / f"{one['id']}-0.png").exists()
    assert len(shell.json("ls", "--batch", swept["batch"])) == 2


def test_a_file_of_jobs_is_accepted_together(shell: Shell, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": PROMPT, "steps": steps}) for steps in (2, 3)]
    (tmp_path / "jobs.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    jobs = shell.json("batch", "jobs.jsonl", "--output", "made", "--idempotency-key", "two")
    assert [job["request"]["steps"] for job in jobs] == [2, 3]
    assert len(list((tmp_path / "made").iterdir())) == 2
    again = shell.json("batch", "jobs.jsonl", "--idempotency-key", "two")
    assert [job["id"] for job in again] == [job["id"] for job in jobs]
    (tmp_path / "jobs.jsonl").write_text(f"{lines[0]}\nnothing")
    assert "jobs.jsonl, line 2" in shell.run("batch", "jobs.jsonl").stderr
    (tmp_path / "jobs.jsonl").write_text(f'{lines[0]}\n{{"prompt": "a", "steps": 0}}')
    assert "#/jobs/1/steps" in shell.run("batch", "jobs.jsonl").stderr


def test_a_preset_is_named_used_and_removed(shell: Shell) -> None:
    assert shell.run("presets", "put", "sketch", "--steps", "2").stdout == "sketch@1\n"
    assert shell.json("presets", "put", "sketch", "--steps", "3")["version"] == 2
    assert [one["version"] for one in shell.json("presets", "get", "sketch")["versions"]] == [2, 1]
    estimate = shell.json("estimate", PROMPT, "--preset", "sketch")
    assert (estimate["request"]["steps"], estimate["preset"]["version"]) == (3, 2)
    shown = shell.run("estimate", PROMPT, "--preset", "sketch@1")
    assert "2 steps" in shown.stdout
    assert "megapixel-iterations" in shown.stdout
    completed = shell.run(
        "submit",
        _LATENTQ_COMPLETE="complete_bash",
        COMP_WORDS="latentq submit --preset sk",
        COMP_CWORD="3",
    )
    assert completed.stdout.split() == ["sketch"]
    assert shell.json("presets", "rm", "sketch") == {"deleted": "sketch"}


@pytest.mark.parametrize("command", ["models", "presets", "samplers"])
def test_the_catalog_is_shown(shell: Shell, command: str) -> None:
    assert shell.json(command)["data"]
    ended = shell.run(command)
    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) > 1


@pytest.mark.parametrize(
    ("arguments", "changes", "exit_code", "complaint"),
    [
        (("submit",), {}, 2, "Missing argument"),
        (("submit", PROMPT, "--sampler", "nothing"), {}, 2, "is not one of"),
        (("submit", PROMPT, "--init-image", "nothing.png"), {}, 2, "does not exist"),
        (("submit", PROMPT, "--init-image", __file__), {}, 4, "unsupported_image"),
        (("submit", PROMPT, "--strength", "0.5"), {}, 4, "/strength"),
        (("submit", PROMPT, "--metadata", "x"), {}, 2, "KEY=VALUE"),
        (("sweep", PROMPT, "--steps", "2,x"), {}, 2, "--steps takes numbers"),
        (("batch", "nothing.jsonl"), {}, 2, "nothing.jsonl"),
        (("ls",), {"LATENTQ_URL": "", "LATENTQ_API_KEY": ""}, 2, "LATENTQ_URL"),
        (("ls",), {"LATENTQ_URL": "localhost:8000"}, 2, "must begin with http"),
        (("get", "job_x"), {"LATENTQ_URL": f"http://127.0.0.1:{free_port()}"}, 3, "not answer"),
        (("submit", PROMPT, "--steps", "0"), {}, 4, "/steps"),
        (("get", "job_nothing"), {}, 4, "not_found"),
        (("ls",), {"LATENTQ_API_KEY": "lq_wrong"}, 4, "unauthorized"),
        (("keys", "create"), {}, 2, "Missing option '--tenant'"),
        (("keys", "create", "--tenant", "t"), {}, 2, "LATENTQ_DATABASE_URL"),
        (("keys", "limit", "t", "--max-running", "0"), {}, 2, "Invalid value"),
        (("keys", "create", "--tenant", "t"), NO_DATABASE, 3, "not answer"),
        (("keys", "create", "--tenant", "t", "--limits", '{"steps": 1}'), {}, 2, "max_steps"),
        (("migrate",), NO_DATABASE, 3, "not answer"),
    ],
)
def test_every_failure_has_its_exit_code_and_says_why(
    shell: Shell,
    arguments: tuple[str, ...],
    changes: dict[str, str],
    exit_code: int,
    complaint: str,
) -> None:
    ended = shell.run(*arguments, **changes)
    assert ended.returncode == exit_code, ended.stderr
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_connection_file_next_to_us_is_enough(
    shell: Shell, stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / ".latentq").symlink_to(stack.data_dir)
    shell.environment = {"PATH": "/usr/bin:/bin"}
    assert shell.json("models")["data"][0]["id"] == "demo"


def test_a_new_key_sees_the_jobs_of_its_tenant_alone(
    shell: Shell, stack: Stack, tmp_path: Path
) -> None:
    job = shell.json("submit", PROMPT, "--steps", "2")
    (tmp_path / ".latentq").symlink_to(stack.data_dir)
    created = shell.json(
        "keys", "create", "--tenant", "another", "--name", "test", "--max-running", "2"
    )
    limit = shell.json("keys", "limit", "another")
    assert limit == {"tenant": "another", "max_running": None}
    assert (created["tenant"], created["name"]) == ("another", "test")
    assert created["webhook_secret"].startswith("whsec_")
    assert created["webhook_secret"] != stack.connection["webhook_secret"]
    shell.environment["LATENTQ_API_KEY"] = created["api_key"]
    assert shell.json("ls") == []
    assert shell.run("get", job["id"]).returncode == 4


def test_an_operator_lists_restricts_and_revokes_keys(
    shell: Shell, stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / ".latentq").symlink_to(stack.data_dir)
    arguments = ("--tenant", "third", "--scope", "jobs:read", "--expires-in-days", "7")
    made = shell.json("keys", "create", *arguments)
    shell.json("keys", "restrict", made["id"], '{"max_queued": 3}')
    (key,) = shell.json("keys", "ls", "--tenant", "third")
    assert key["id"] == made["id"]
    assert key["scopes"] == ["jobs:read"]
    assert key["limits"] == {"max_queued": 3}
    assert key["expires_at"] > key["created_at"]
    assert made["id"] in shell.run("keys", "ls").stdout
    successor = shell.json("keys", "rotate", made["id"])
    assert successor["api_key"] != made["api_key"]
    assert [successor[name] for name in ("scopes", "limits")] == [["jobs:read"], {"max_queued": 3}]
    secret = shell.json("keys", "rotate-webhook-secret", "third")["webhook_secret"]
    assert secret.startswith("whsec_")
    assert secret != made["webhook_secret"]
    assert shell.json("keys", "revoke", made["id"]) == {"revoked": made["id"]}
    (left,) = shell.json("keys", "ls", "--tenant", "third")
    assert left["id"] == successor["id"]
    again = shell.run("keys", "revoke", made["id"])
    assert (again.returncode, again.stderr) == (4, "latentq: there is no such key\n")


def test_help_comes_without_loading_what_only_servers_need(shell: Shell) -> None:
    program = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'sqlalchemy', 'celery', 'fastapi', 'boto3'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"
    assert "submit" in ended.stdout
