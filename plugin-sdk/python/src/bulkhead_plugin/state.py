"""Keys and values of this plugin in this tenant. Reads see the run's own earlier writes.

Values are JSON unless the functions with `bytes` in their names are used. What `increment` counts is a JSON number
too, so `get` reads it.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from . import _host, _text

#: The most keys that the host gives at once.
_PAGE = 1_000


def get(key: str, default: Any = None) -> Any:
    """The value under a key."""
    value = get_bytes(key)
    return default if value is None else json.loads(value)


def set(key: str, value: object, *, ttl: timedelta | None = None) -> None:
    """Puts a value under a key, for ever or for a time."""
    set_bytes(key, _text.to_json(value), ttl=ttl)


def get_bytes(key: str) -> bytes | None:
    """The bytes under a key."""
    return _host.asked(_host.state.get, key)


def set_bytes(key: str, value: bytes, *, ttl: timedelta | None = None) -> None:
    """Puts bytes under a key, for ever or for a time."""
    _host.asked(_host.state.set, key, value, None if ttl is None else _text.milliseconds(ttl))


def delete(key: str) -> None:
    """Removes a key; nothing happens if it is not there."""
    _host.asked(_host.state.delete, key)


def increment(key: str, by: int = 1) -> int:
    """Adds to a number (0 if absent) and answers the sum."""
    return _host.asked(_host.state.increment, key, by)


def keys(prefix: str = "") -> Iterator[str]:
    """The keys that begin with a prefix, in order, asked for page by page."""
    after = None
    while True:
        page = _host.asked(_host.state.keys, prefix, after, _PAGE)
        yield from page.keys
        after = page.next
        if after is None:
            return
