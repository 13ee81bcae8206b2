"""Who is told what of a job, and where messages may go."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

MAX_URL_CHARACTERS = 2048
#: Other ports are not for the web: a message there might be a command to something else.
PORTS = (443, 8443)
#: What may stand in a URL (RFC 3986) but for `#`: fragments are not sent.
_URL = re.compile(r"[A-Za-z0-9:/?\[\]@!$&'()*+,;=._~%-]+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*\.?")


class EventType(StrEnum):
    """What may be told of a job."""

    #: Its first attempt began.
    STARTED = "job.started"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"


class EndpointEvent(StrEnum):
    """What may be told of an endpoint itself."""

    #: Its owner asked for it, to see that it arrives.
    TEST = "endpoint.test"


def read_event_type(name: str) -> EventType | EndpointEvent:
    """Read the type of an event."""
    return EndpointEvent.TEST if name == EndpointEvent.TEST else EventType(name)


#: What is told unless a job says otherwise: how it ended.
TERMINAL_EVENTS = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELED)


@dataclass(frozen=True, slots=True)
class PredictionRef:
    """What a job does not know of itself as a prediction of Replicate's API."""

    #: Where that API is served.
    base_url: str
    #: The revision of its model.
    version: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom a job tells of what."""

    url: str
    events: tuple[EventType, ...] = TERMINAL_EVENTS
    #: Set if the receiver gets predictions instead of events.
    prediction: PredictionRef | None = None


class DisabledReason(StrEnum):
    """Why a receiver gets nothing."""

    #: It answered 410.
    GONE = "gone"
    #: Its owner said so.
    REQUESTED = "requested"


class DeliveryStatus(StrEnum):
    """Where the delivery of an event to a receiver stands."""

    #: It will be tried, perhaps again.
    PENDING = "pending"
    #: The receiver took it.
    DELIVERED = "delivered"
    #: It was tried often enough, or the receiver wants no more.
    DEAD = "dead"


class Outcome(StrEnum):
    """How one attempt to deliver ended."""

    #: The receiver answered 2xx.
    ACCEPTED = "accepted"
    #: It answered 3xx: a redirect is never followed.
    REDIRECTED = "redirected"
    #: It answered 410: it wants no more.
    GONE = "gone"
    #: It answered anything else.
    REFUSED = "refused"
    #: There was no answer in time.
    TIMED_OUT = "timed_out"
    #: There was no connection, or it broke.
    UNREACHABLE = "unreachable"
    #: Its certificate is not valid for its name.
    UNTRUSTED = "untrusted"
    #: Its name stands for an address that is not public, or its URL is not allowed any more.
    FORBIDDEN = "forbidden"
    #: This side stopped in the middle.
    INTERRUPTED = "interrupted"
    #: This side met an error of its own.
    INTERNAL = "internal"
    #: Not tried: the receiver had answered 410 before, or its owner disabled it.
    DISABLED = "disabled"


def find_url_refusal(url: str, *, allow_loopback: bool) -> str | None:
    """Tell what is wrong with the URL of a receiver; None if messages may go there.

    Names are not resolved: what address a name stands for is checked at every attempt.
    """
    if len(url) > MAX_URL_CHARACTERS:
        return f"at most {MAX_URL_CHARACTERS:,} characters work"
    if not _URL.fullmatch(url):
        return (
            "write a URL without a fragment, other characters percent-encoded and names in Punycode"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "has no valid host and port"
    if "@" in parts.netloc:
        return "leave out user and password: the signature tells who sends"
    address = _parse_address(host)
    if address is None and not _HOST.fullmatch(host):
        return "has no valid host"
    is_loopback = host == "localhost" if address is None else address.is_loopback
    if is_loopback and allow_loopback:
        return None if parts.scheme in ("http", "https") else "must begin with https://"
    if parts.scheme != "https":
        return "must begin with https://"
    if is_loopback or (address is not None and not address.is_global):
        return "this address is not public"
    if port not in (None, *PORTS):
        return f"only the ports {' and '.join(map(str, PORTS))} work"
    return None


def host_of(url: str) -> str:
    """Name the receiver's host and port, by which deliveries are kept apart."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.hostname}:{port}"


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
