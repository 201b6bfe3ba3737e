"""Scores reviews, and publishes `reviews.alarm` when a product has too many bad ones within a day."""

from datetime import timedelta

from bulkhead_plugin import Event, Reject, context, effects, handler, log, state

from words import NEGATIONS, WEIGHTS

DAY = timedelta(days=1)


def score(text: str) -> float:
    """From -1 (bad) to 1 (good); 0 for a text that says neither."""
    total, found, sign = 0.0, 0, 1
    for word in text.lower().replace(".", " ").replace(",", " ").replace("!", " ").split():
        if word in NEGATIONS:
            sign = -1
        elif word in WEIGHTS:
            total, found, sign = total + sign * WEIGHTS[word], found + 1, 1
    return total / found if found else 0.0


@handler
def handle(event: Event) -> None:
    review = event.json()
    product, text = review.get("product"), review.get("text")
    if not product or not isinstance(text, str):
        raise Reject("a review has a product and a text")

    this = score(text)
    scored = state.increment(f"scored:{product}")
    log.info("scored", product=product, score=round(this, 2), nth=scored)
    if this >= context.config("bad"):
        return

    # One key for each bad review; the host forgets it after a day.
    state.set(f"bad:{product}:{event.id}", this, ttl=DAY)
    recent = list(state.keys(f"bad:{product}:"))
    if len(recent) >= context.config("alarm"):
        effects.emit("reviews.alarm", {"product": product, "bad": len(recent)}, subject=product)
        for key in recent:
            state.delete(key)
