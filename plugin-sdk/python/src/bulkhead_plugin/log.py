"""The plugin's log. It is kept with the run, also with one that fails.

    log.info("flagged", customer=customer, score=0.93)

`print` and the standard `logging` lead here as well.
"""

from . import _text
from ._host import log as _log

Level = _log.Level


def write(level: Level, message: object, **fields: object) -> None:
    """Writes a line with fields."""
    _log.write(level, str(message), _text.pairs(fields))


def trace(message: object, **fields: object) -> None:
    """Writes a line for tracing."""
    write(Level.TRACE, message, **fields)


def debug(message: object, **fields: object) -> None:
    """Writes a line for the plugin's author."""
    write(Level.DEBUG, message, **fields)


def info(message: object, **fields: object) -> None:
    """Writes an ordinary line."""
    write(Level.INFO, message, **fields)


def warn(message: object, **fields: object) -> None:
    """Writes a line about something unusual."""
    write(Level.WARN, message, **fields)


def error(message: object, **fields: object) -> None:
    """Writes a line about something wrong."""
    write(Level.ERROR, message, **fields)
