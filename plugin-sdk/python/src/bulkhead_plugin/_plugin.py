"""The plugin's functions, and what every call of one goes through."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from . import _host, _text, log
from ._runtime import Runtime
from ._streams import write_lines
from .event import Draft, Event
from .failure import Failure, Reject, Retry
from .refusal import Refusal

T = TypeVar("T")

HandlerFunction = Callable[[Event], None]
TransformerFunction = Callable[[Event], "Draft | Iterable[Draft] | None"]

_functions: dict[str, Callable[[Event], object]] = {}
_runtime = Runtime()


def handler(function: HandlerFunction) -> HandlerFunction:
    """Makes a function the plugin's handler: the host calls it once for each event. One a plugin."""
    return _register("handler", function)


def transformer(function: TransformerFunction) -> TransformerFunction:
    """Makes a function the plugin's transformer: it answers the draft, the drafts or none (drop) that go on.

    One a plugin, which may have a handler, too.
    """
    return _register("transformer", function)


def _register(role: str, function: T) -> T:
    if role in _functions:
        raise TypeError(f"a plugin has one {role}; `{_functions[role].__name__}` is one already")
    _functions[role] = function  # type: ignore[assignment]
    return function


def function_of(role: str) -> Callable[[Event], object]:
    """What was registered."""
    if role not in _functions:
        raise TypeError(f"no function is decorated with `@{role}`")
    return _functions[role]


def handle(event: _host.types.Event) -> None:
    """The handler, as the host calls it."""
    _call(_functions["handler"], event)


def transform(event: _host.types.Event) -> list[_host.types.Draft]:
    """The transformer, as the host calls it."""
    return _call(lambda this: _drafts(_functions["transformer"](this)), event)


def _drafts(answer: object) -> list[_host.types.Draft]:
    if answer is None:
        return []
    drafts = [answer] if isinstance(answer, Draft) else list(answer)  # type: ignore[call-overload]
    return [draft._wit() for draft in drafts]


def _call(function: Callable[[Event], T], event: _host.types.Event) -> T:
    """Runs it; whatever is raised becomes a failure, because an exception that leaves the plugin has no text."""
    _runtime.begin()
    try:
        return function(Event._of(event))
    except BaseException as error:
        failure = _failure(error)
    finally:
        _runtime.end()
    raise _host.Err(failure)


def _failure(error: BaseException) -> _host.types.Failure:
    verdict, after, attributes = _host.types.Verdict.RETRY, None, []
    if isinstance(error, Failure):
        reason, attributes = error.reason, _text.pairs(error.attributes)
        if isinstance(error, Reject):
            verdict = _host.types.Verdict.REJECT
        elif isinstance(error, Retry) and error.after is not None:
            after = _text.milliseconds(error.after)
    else:
        reason = "".join(traceback.format_exception_only(error)).strip()
        write_lines(log.Level.ERROR, "".join(traceback.format_exception(error)).strip(), [])
        if isinstance(error, Refusal) and not error.may_pass:
            verdict = _host.types.Verdict.REJECT
    return _host.types.Failure(verdict, reason, after, attributes)
