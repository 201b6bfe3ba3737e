"""Flags orders above a threshold, and counts them by customer."""

from bulkhead_plugin import Event, Reject, context, effects, handler, log, state


@handler
def handle(event: Event) -> None:
    """Nothing that is done here happens before the host commits the run; if it fails, nothing of it happened."""
    order = event.json()
    if order["total"] < 0:
        raise Reject(f"order {order['id']} has a total below zero")
    if order["total"] <= context.config("threshold", 1000):
        return
    flagged = state.increment(f"flagged:{order['customer']}")
    log.info(f"flagged for the {flagged}. time", order=order["id"], customer=order["customer"])
    flag = {"order": order["id"], "total": order["total"], "flagged": flagged}
    effects.emit("orders.flagged", flag, subject=order["id"], key=order["customer"])
