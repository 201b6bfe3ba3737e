"""How values of Python become what the contract has: text, bytes and numbers of milliseconds."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)


def moment(milliseconds: int) -> datetime:
    """A point in time, in UTC."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def milliseconds(span: timedelta) -> int:
    """A span, rounded down. A negative one is an error of the caller."""
    if span < timedelta(0):
        raise ValueError(f"a span of {span} is negative")
    return span // _MILLISECOND


def to_json(value: object) -> bytes:
    """JSON without blanks, in UTF-8. What JSON has no word for (NaN) is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def body(data: object, content_type: str | None) -> tuple[str, bytes]:
    """A media type and bytes: bytes and text as they are, anything else as JSON."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return content_type or BYTES, bytes(data)
    if isinstance(data, str):
        return content_type or TEXT, data.encode()
    return content_type or JSON, to_json(data)


def pairs(attributes: Mapping[str, object] | None) -> list[tuple[str, str]]:
    """Names and their values as text."""
    return [(name, str(value)) for name, value in (attributes or {}).items()]
