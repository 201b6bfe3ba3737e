"""`print`, `sys.stderr` and `logging`, led to the plugin's log."""

import io
import logging
import sys

from . import _text
from ._host import log

#: What a record of `logging` has by itself; everything else came with `extra=`.
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_LEVELS = (
    (logging.ERROR, log.Level.ERROR),
    (logging.WARNING, log.Level.WARN),
    (logging.INFO, log.Level.INFO),
    (logging.DEBUG, log.Level.DEBUG),
)


def write_lines(level: log.Level, text: str, fields: list[tuple[str, str]]) -> None:
    """Each line of the text as one of the log; the fields stand at the first."""
    for line in text.splitlines() or [""]:
        log.write(level, line, fields)
        fields = []


class Lines(io.TextIOBase):
    """A stream that writes each line to the log."""

    def __init__(self, level: log.Level) -> None:
        self._level = level
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            log.write(self._level, line, [])
        return len(text)

    def finish(self) -> None:
        """Writes what stands in a line that was not ended."""
        if self._rest:
            log.write(self._level, self._rest, [])
            self._rest = ""


class Handler(logging.Handler):
    """A handler of `logging` that writes each record to the log, with its logger's name and `extra` as fields."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((ours for theirs, ours in _LEVELS if record.levelno >= theirs), log.Level.TRACE)
        fields = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        if record.name != "root":
            fields["logger"] = record.name
        write_lines(level, self.format(record), _text.pairs(fields))


class Streams:
    """In place for the length of a call."""

    def __init__(self) -> None:
        self._out = Lines(log.Level.INFO)
        self._err = Lines(log.Level.WARN)
        self._handler = Handler()
        self._before = (sys.stdout, sys.stderr)
        # What a library says for its own authors is not for the tenant.
        logging.getLogger().setLevel(logging.INFO)

    def begin(self) -> None:
        self._before = (sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = self._out, self._err
        logging.getLogger().addHandler(self._handler)

    def end(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        self._out.finish()
        self._err.finish()
        sys.stdout, sys.stderr = self._before
