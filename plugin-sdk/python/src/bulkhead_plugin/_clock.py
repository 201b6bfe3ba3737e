"""The attempt's time, under the names by which Python's programs ask for it."""

import datetime as _datetime
import time as _time
from collections.abc import Callable
from typing import Any

# `strptime` loads it when it is first called, and then it is too late.
import _strptime  # type: ignore[import-not-found]  # noqa: F401

from . import _host

_real = _datetime.datetime


class _Host(type(_real)):  # type: ignore[misc]
    """Takes every `datetime` for one of ours: C code makes the real ones."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _real) if cls is Datetime else super().__instancecheck__(value)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _real) if cls is Datetime else super().__subclasscheck__(other)


class Datetime(_real, metaclass=_Host):
    """`datetime.datetime` on the attempt's clock."""

    @classmethod
    def now(cls, tz: _datetime.tzinfo | None = None) -> "Datetime":
        return cls.fromtimestamp(_time.time(), tz)

    @classmethod
    def utcnow(cls) -> "Datetime":
        return cls.fromtimestamp(_time.time(), _datetime.timezone.utc).replace(tzinfo=None)

    def __repr__(self) -> str:
        return f"datetime.{super().__repr__()}"


Datetime.__name__ = Datetime.__qualname__ = "datetime"
Datetime.__module__ = "datetime"


class Clock:
    """Stands still during a call."""

    def __init__(self) -> None:
        self._calling = False
        self._now: int | None = None
        _datetime.datetime = Datetime  # type: ignore[misc]
        for name in ("time", "monotonic", "perf_counter"):
            self._replace(name, lambda: self._milliseconds() / 1_000)
            self._replace(f"{name}_ns", lambda: self._milliseconds() * 1_000_000)
        # What these take in place of a missing time, they ask the system for.
        for name in ("gmtime", "localtime", "ctime"):
            self._with_time(name)
        strftime = _time.strftime
        _time.strftime = lambda format, t=None: strftime(format, _time.localtime() if t is None else t)
        asctime = _time.asctime
        _time.asctime = lambda t=None: asctime(_time.localtime() if t is None else t)
        self._replace("sleep", _sleep)

    def begin(self) -> None:
        self._calling, self._now = True, None

    def end(self) -> None:
        self._calling = False

    def _milliseconds(self) -> int:
        if self._now is None:
            self._now = _host.context.current().now
        return self._now

    def _replace(self, name: str, ours: Callable[..., Any]) -> None:
        real = getattr(_time, name)
        setattr(_time, name, lambda *arguments: (ours if self._calling else real)(*arguments))

    def _with_time(self, name: str) -> None:
        real = getattr(_time, name)
        setattr(_time, name, lambda seconds=None: real(_time.time() if seconds is None else seconds))


def _sleep(seconds: float) -> None:
    raise RuntimeError(
        "a plugin cannot sleep: raise Retry(…, after=…) to be called again later, or effects.schedule an event"
    )
