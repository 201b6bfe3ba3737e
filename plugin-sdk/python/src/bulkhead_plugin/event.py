"""Events: what a plugin is called with, and drafts of what it hands on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import _text
from ._host import types
from .failure import Reject


@dataclass(frozen=True, slots=True)
class Event:
    """An event as the host stored it: a CloudEvents 1.0 event."""

    #: The publisher's id, unique within its source.
    id: str
    #: Where it happened.
    source: str
    #: Its type, dotted: `orders.created`.
    type: str
    #: What it is about.
    subject: str | None
    #: When it happened, as the publisher said; in UTC.
    time: datetime
    #: Events of one tenant with the same key can be kept in order.
    key: str | None
    #: Shared by everything that follows from one first event.
    correlation_id: str
    #: The event that this one follows from; none for a first event.
    causation_id: str | None
    #: The media type of the data.
    content_type: str
    #: The payload, byte for byte.
    data: bytes
    #: Every other attribute: schema version, category, severity, actor, the publisher's own.
    attributes: dict[str, str]

    def json(self) -> Any:
        """The data, decoded. What is no JSON is rejected: it would be none at the next attempt, too."""
        try:
            return json.loads(self.data)
        except ValueError as error:
            what = f"{self.content_type}, {len(self.data)} bytes"
            raise Reject(f"the data of this `{self.type}` ({what}) is no JSON: {error}") from error

    def text(self) -> str:
        """The data as text. What is no UTF-8 is rejected."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise Reject(f"the data of this `{self.type}` is no UTF-8: {error}") from error

    def draft(self, data: object = None) -> Draft:
        """A draft with this event's type, subject, key and attributes: what a transformer passes on.

        With `data` in place of the event's own, if there is any; see `Draft`.
        """
        if data is None:
            draft = Draft(self.type, self.data, content_type=self.content_type)
        else:
            draft = Draft(self.type, data)
        draft.subject, draft.key, draft.attributes = self.subject, self.key, dict(self.attributes)
        return draft

    @classmethod
    def _of(cls, event: types.Event) -> Event:
        return cls(
            event.id,
            event.source,
            event.type,
            event.subject,
            _text.moment(event.time),
            event.key,
            event.correlation_id,
            event.causation_id,
            event.content_type,
            event.data,
            dict(event.attributes),
        )


@dataclass(slots=True)
class Draft:
    """An event to be: emitted, scheduled, or passed on by a transformer. The host adds identity and causation.

    `data` is sent as it is if it is bytes or text, and as JSON otherwise.
    """

    #: Its type, dotted: `orders.flagged`.
    type: str
    #: The payload.
    data: object = None
    #: What it is about.
    subject: str | None = field(default=None, kw_only=True)
    #: Events of one tenant with the same key can be kept in order.
    key: str | None = field(default=None, kw_only=True)
    #: The media type; by default what the data is.
    content_type: str | None = field(default=None, kw_only=True)
    #: Every other attribute, names in lower case.
    attributes: Mapping[str, object] = field(default_factory=dict, kw_only=True)

    def _wit(self) -> types.Draft:
        content_type, data = _text.body(self.data, self.content_type)
        return types.Draft(self.type, self.subject, self.key, content_type, data, _text.pairs(self.attributes))
