"""Who is running, and with what settings."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import _host, _text

#: Bytes that the host gives at once.
_RANDOM_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class Invocation:
    """This attempt."""

    #: The plugin's name.
    plugin: str
    #: Its version.
    version: str
    #: The rule that called it.
    rule: str
    #: 1 on the first try.
    attempt: int
    #: The time of this attempt, the same on every re-execution of it; in UTC. There is no other clock.
    now: datetime


def current() -> Invocation:
    """This attempt."""
    this = _host.context.current()
    return Invocation(this.plugin, this.version, this.rule, this.attempt, _text.moment(this.now))


def config(name: str, default: Any = None) -> Any:
    """A setting of this plugin; `default` if neither the tenant nor the manifest gives it a value."""
    value = _host.context.config(name)
    return default if value is None else json.loads(value)


def secret(name: str) -> str:
    """A secret of the tenant; the manifest must ask for it under `secrets`."""
    return _host.asked(_host.context.secret, name)


def field(pointer: str, default: Any = None) -> Any:
    """One value in the event's data by its JSON pointer, without decoding the whole."""
    value = _host.context.field(pointer)
    return default if value is None else json.loads(value)


def random(length: int) -> bytes:
    """Random bytes: they differ between events and repeat on a re-execution."""
    parts = []
    while length > 0:
        parts.append(_host.context.random(min(length, _RANDOM_MAX)))
        length -= len(parts[-1])
    return b"".join(parts)
