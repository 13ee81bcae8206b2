"""The S3-compatible store of results, uploads and checkpoints. The only place that knows boto3."""

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import NotFound, ServiceUnavailable, StorageUnavailable
from shared.store_address import Addressing, StoreAddress
from shared.tls import blame_tls

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2RequestTypeDef

#: Presigned links cannot live longer, in seconds; boto3 would sign them and the store refuse them.
MAX_LINK_TTL_S = 604_800
CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 10
MAX_TRIES = 3
#: Objects that one request lists or deletes at most.
PAGE_SIZE = 1000
_CHUNK_BYTES = 1024 * 1024
#: What the keys of all outputs begin with.
RESULTS_PREFIX = "results/"
#: And those of the states of running jobs.
CHECKPOINTS_PREFIX = "checkpoints/"
_UUID = "-".join(rf"[0-9a-f]{{{length}}}" for length in (8, 4, 4, 4, 12))
_ATTEMPT_KEY = re.compile(rf"(?:{RESULTS_PREFIX}|{CHECKPOINTS_PREFIX})([^/]+)/(\d+)-({_UUID})/(.+)")
_CHECKPOINT_NAME = re.compile(r"(\d+)\.safetensors")
_FORBIDDEN = 403
_NOT_FOUND = 404
_PRECONDITION_FAILED = 412
_SERVER_ERROR = 500
_AWAY = "the object store does not answer"
_BEGAN_AT = "latentq.began_at"


def artifact_key(job_id: str, *, attempt: int, token: UUID, index: int, extension: str) -> str:
    """Name the object of an output: never used twice, whatever happens to the attempt."""
    return f"{results_prefix(job_id)}{attempt}-{token}/{index}.{extension}"


def checkpoint_key(job_id: str, *, attempt: int, token: UUID, iteration: int) -> str:
    """Name the object of a state: no attempt writes where another one does."""
    return f"{checkpoints_prefix(job_id)}{attempt}-{token}/{iteration}.safetensors"


def parse_attempt_key(key: str) -> tuple[str, UUID] | None:
    """Tell which job and lease an output or a state is of; None if the key is none of either."""
    match = _ATTEMPT_KEY.fullmatch(key)
    return None if match is None else (match[1], UUID(match[3]))


def parse_checkpoint_key(key: str) -> tuple[int, int] | None:
    """Tell which attempt and iteration a state is of; None if the key is none of a state."""
    match = _ATTEMPT_KEY.fullmatch(key)
    name = match and _CHECKPOINT_NAME.fullmatch(match[4])
    return (int(match[2]), int(name[1])) if match and name else None


def results_prefix(job_id: str) -> str:
    """Name what all outputs of a job begin with, whichever attempt wrote them."""
    return f"{RESULTS_PREFIX}{job_id}/"


def checkpoints_prefix(job_id: str) -> str:
    """Name what all states of a job begin with, whichever attempt wrote them."""
    return f"{CHECKPOINTS_PREFIX}{job_id}/"


def upload_key(tenant: str, upload_id: str) -> str:
    """Name the object of an upload."""
    return f"uploads/{tenant}/{upload_id}"


def incoming_key(tenant: str, incoming_id: str) -> str:
    """Name the object of a file that a client brings itself, until it is an upload."""
    return f"incoming/{tenant}/{incoming_id}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it."""

    key: str
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class StoreCall:
    """A call of the store that has ended; what streams behind its answer is not in its time."""

    #: As S3 calls it, such as `PutObject`.
    operation: str
    duration_s: float
    #: The store did not answer within all tries, or with an error of its own.
    is_failed: bool


class ObjectStore:
    """Write objects once and hand out links to them."""

    def __init__(self, address: StoreAddress) -> None:
        self._bucket = address.bucket
        self._client = _connect(address, address.endpoint)
        # The host is part of the signature: links are signed for the name that clients use.
        self._public_client = _connect(address, address.public_endpoint or address.endpoint)

    def observe(self, on_call: Callable[[StoreCall], None]) -> None:
        """Tell of every call when it ends, on the thread that made it."""
        events = self._client.meta.events
        events.register("before-call.s3", _note_start)
        events.register("after-call.s3", partial(_tell, on_call))
        events.register("after-call-error.s3", partial(_tell, on_call))

    def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Store an object that must not exist yet.

        Raises:
            StorageUnavailable: The store did not take it within all tries.
        """
        digest = hashlib.sha256(data).hexdigest()
        self.put_file(key, io.BytesIO(data), sha256=digest, content_type=content_type)

    def put_file(self, key: str, file: IO[bytes], *, sha256: str, content_type: str) -> None:
        """Store an object that must not exist yet out of a file, which is never held whole.

        Raises:
            StorageUnavailable: The store did not take it within all tries.
        """
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=file,
                ContentType=content_type,
                Metadata={"sha256": sha256},
                IfNoneMatch="*",
            )
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            # A retry after a lost reply finds the object that the first try wrote.
            if status != _PRECONDITION_FAILED or not self._holds(key, sha256):
                raise StorageUnavailable(f"the object store answered {status}") from error
        except BotoCoreError as error:
            raise StorageUnavailable(blame_tls(_AWAY, error)) from error

    def get(self, key: str) -> bytes:
        """Read an object.

        Raises:
            NotFound: There is no such object.
            StorageUnavailable: The store does not answer.
        """
        with _finding():
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def get_file(self, key: str, file: IO[bytes], *, max_bytes: int) -> int:
        """Read an object into a file, but not one that is larger; returns its length.

        Raises:
            NotFound: There is no such object.
            StorageUnavailable: The store does not answer.
        """
        with _finding():
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] <= max_bytes:
                    for chunk in body.iter_chunks(_CHUNK_BYTES):
                        file.write(chunk)
        return answer["ContentLength"]

    def list_page(
        self, prefix: str, *, place: str | None = None
    ) -> tuple[list[StoredObject], str | None]:
        """List objects whose key begins with a prefix, and the place of the next page, if any.

        Raises:
            StorageUnavailable: The store does not answer, or does not know the place.
        """
        request: ListObjectsV2RequestTypeDef = {
            "Bucket": self._bucket,
            "Prefix": prefix,
            "MaxKeys": PAGE_SIZE,
        }
        if place is not None:
            request["ContinuationToken"] = place
        with _answering():
            answer = self._client.list_objects_v2(**request)
        found = answer.get("Contents", [])
        objects = [StoredObject(entry["Key"], entry["LastModified"]) for entry in found]
        return objects, answer.get("NextContinuationToken")

    def list_all(self, prefix: str) -> list[StoredObject]:
        """List all objects whose key begins with a prefix.

        Raises:
            StorageUnavailable: The store does not answer.
        """
        objects, place = self.list_page(prefix)
        while place is not None:
            more, place = self.list_page(prefix, place=place)
            objects += more
        return objects

    def delete(self, keys: Sequence[str]) -> None:
        """Delete up to 1,000 objects; one that is not there is no error.

        Raises:
            StorageUnavailable: The store did not delete all of them.
        """
        with _answering():
            answer = self._client.delete_objects(
                Bucket=self._bucket,
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
            )
        if errors := answer.get("Errors"):
            code = errors[0].get("Code", "no reason")
            raise StorageUnavailable(f"the object store kept {len(errors)} objects: {code}")

    def delete_prefix(self, prefix: str) -> None:
        """Delete all objects whose key begins with a prefix.

        Raises:
            StorageUnavailable: The store did not delete all of them.
        """
        place: str | None = None
        while True:
            objects, place = self.list_page(prefix, place=place)
            if objects:
                self.delete([found.key for found in objects])
            if place is None:
                return

    def presign(
        self,
        key: str,
        *,
        filename: str,
        content_type: str,
        ttl_s: int,
        is_attachment: bool = False,
    ) -> str:
        """Make a link that needs no key and works for `ttl_s` seconds, 7 days at most.

        Browsers show what it leads to, or save it as an attachment.
        """
        disposition = "attachment" if is_attachment else "inline"
        return self._public_client.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self._bucket,
                "Key": key,
                "ResponseContentDisposition": f'{disposition}; filename="{filename}"',
                "ResponseContentType": content_type,
                "ResponseCacheControl": "private, max-age=600",
            },
            ExpiresIn=min(ttl_s, MAX_LINK_TTL_S),
        )

    def presign_post(
        self, key: str, *, content_type: str, num_bytes: int, ttl_s: int
    ) -> tuple[str, dict[str, str]]:
        """Make a form that stores one object of this type and length; returns URL and fields.

        It needs no key, works for `ttl_s` seconds and as often as it is sent.
        """
        signed = self._public_client.generate_presigned_post(
            self._bucket,
            key,
            Fields={"Content-Type": content_type},
            Conditions=[
                {"Content-Type": content_type},
                ["content-length-range", num_bytes, num_bytes],
            ],
            ExpiresIn=ttl_s,
        )
        return signed["url"], signed["fields"]

    def ping(self) -> None:
        """Check that the bucket can be reached.

        Raises:
            ServiceUnavailable: It cannot.
        """
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            says = {
                _FORBIDDEN: "the object store refuses the keys",
                _NOT_FOUND: f"the object store has no bucket {self._bucket}",
            }
            raise ServiceUnavailable(
                says.get(status, f"the object store answered {status}")
            ) from error
        except BotoCoreError as error:
            raise ServiceUnavailable(blame_tls(_AWAY, error)) from error

    def _holds(self, key: str, digest: str) -> bool:
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key)
        except (BotoCoreError, ClientError) as error:
            raise StorageUnavailable(blame_tls(_AWAY, error)) from error
        return head["Metadata"].get("sha256") == digest


def _note_start(context: dict[str, Any], **_: Any) -> None:
    context[_BEGAN_AT] = time.perf_counter()


def _tell(
    on_call: Callable[[StoreCall], None],
    context: dict[str, Any],
    event_name: str,
    http_response: Any = None,
    **_: Any,
) -> None:
    on_call(
        StoreCall(
            operation=event_name.rpartition(".")[2],
            duration_s=time.perf_counter() - context[_BEGAN_AT],
            is_failed=http_response is None or http_response.status_code >= _SERVER_ERROR,
        )
    )


@contextmanager
def _finding() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == _NOT_FOUND:
            raise NotFound("there is no such object") from error
        raise StorageUnavailable(f"the object store answered {status}") from error
    except BotoCoreError as error:
        raise StorageUnavailable(blame_tls(_AWAY, error)) from error


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise StorageUnavailable(f"the object store answered {status}") from error
    except BotoCoreError as error:
        raise StorageUnavailable(blame_tls(_AWAY, error)) from error


def _connect(address: StoreAddress, endpoint: str | None) -> "S3Client":
    usual = Addressing.VIRTUAL if endpoint is None else Addressing.PATH
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": (address.addressing or usual).value},
        # Stores other than AWS's refuse the newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"max_attempts": MAX_TRIES, "mode": "standard"},
        max_pool_connections=32,
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=address.region,
        aws_access_key_id=address.access_key,
        aws_secret_access_key=address.secret_key,
        verify=None if address.ca_bundle is None else str(address.ca_bundle),
        config=config,
    )
