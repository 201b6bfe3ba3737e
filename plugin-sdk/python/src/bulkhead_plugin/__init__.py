"""Write Bulkhead plugins in Python.

A plugin is a function over an event. A `handler` acts on it; a `transformer` turns it into others, which go on
through the pipeline of the rule that called it. What a plugin wants to happen is an *effect*: the host holds it back
and commits it together with the run, or discards it with a run that fails. So a plugin may be run again at any time
and never has to undo anything.

    from bulkhead_plugin import Event, context, effects, handler, log, state

    @handler
    def handle(event: Event) -> None:
        order = event.json()
        if order["total"] > context.config("threshold", 1000):
            nth = state.increment("flagged")
            log.info("flagged an order", total=order["total"], nth=nth)
            effects.emit("orders.flagged", {"total": order["total"]}, key=event.key)

`python -m bulkhead_plugin build` makes a component of it.

Raise `Retry` to be tried again later and `Reject` to have the run parked for a person. Any other exception is a retry
with its traceback in the log; a `Refusal` of the host is a retry only if time may lift it.
"""

from . import context, effects, log, state, usage
from ._plugin import handler, transformer
from .context import Invocation
from .event import Draft, Event
from .failure import Failure, Reject, Retry
from .refusal import Denied, Invalid, Limit, NotFound, Other, Refusal

__all__ = [
    "Denied",
    "Draft",
    "Event",
    "Failure",
    "Invalid",
    "Invocation",
    "Limit",
    "NotFound",
    "Other",
    "Refusal",
    "Reject",
    "Retry",
    "context",
    "effects",
    "handler",
    "log",
    "state",
    "transformer",
    "usage",
]
