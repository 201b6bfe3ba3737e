"""What the plugin wants to happen. Nothing happens before the run commits, and nothing if it fails."""

from collections.abc import Mapping
from datetime import timedelta

from . import _host, _text
from .event import Draft


def emit(
    event: str | Draft,
    data: object = None,
    *,
    subject: str | None = None,
    key: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> str:
    """Publishes an event in the same tenant, and answers the id that it will have.

    `event` is a draft, or a type that makes one together with the other arguments.
    """
    return _host.asked(_host.effects.emit, _draft(event, data, subject, key, attributes))


def deliver(
    sink: str,
    data: object,
    *,
    content_type: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> str:
    """Sends a body to one of the tenant's sinks, and answers the id by which the receiver can dedupe.

    Bytes and text are sent as they are, anything else as JSON. What the attributes become is the sink's affair: a
    webhook sends them as headers.
    """
    media, body = _text.body(data, content_type)
    return _host.asked(_host.effects.deliver, sink, media, body, _text.pairs(attributes))


def schedule(
    after: timedelta,
    event: str | Draft,
    data: object = None,
    *,
    name: str | None = None,
    subject: str | None = None,
    key: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> str:
    """Publishes an event later, and answers the timer's id. A second timer of the same name replaces the first."""
    draft = _draft(event, data, subject, key, attributes)
    return _host.asked(_host.effects.schedule, name, _text.milliseconds(after), draft)


def cancel(timer: str) -> None:
    """Takes a timer back, by its id or name."""
    _host.asked(_host.effects.cancel, timer)


def _draft(
    event: str | Draft,
    data: object,
    subject: str | None,
    key: str | None,
    attributes: Mapping[str, object] | None,
) -> _host.types.Draft:
    if isinstance(event, Draft):
        if not (data is None and subject is None and key is None and attributes is None):
            raise TypeError("a draft has its data, subject, key and attributes in itself")
        return event._wit()
    return Draft(event, data, subject=subject, key=key, attributes=attributes or {})._wit()
