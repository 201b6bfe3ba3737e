"""Failures: how a plugin ends a run that does not succeed. The run's effects are discarded."""

from datetime import timedelta


class Failure(Exception):
    """The end of a run. Raise `Retry` or `Reject`.

    `reason` is for people; attributes are further facts for whoever looks at the run.
    """

    def __init__(self, reason: str, **attributes: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.attributes = {name: str(value) for name, value in attributes.items()}


class Retry(Failure):
    """Asks for another attempt: later, as often as the rule's `retry` allows.

    No attempt is made before `after` has passed; without it the host decides.
    """

    def __init__(self, reason: str, *, after: timedelta | None = None, **attributes: object) -> None:
        super().__init__(reason, **attributes)
        if after is not None and after < timedelta(0):
            raise ValueError(f"an attempt {after} ago is none")
        self.after = after


class Reject(Failure):
    """Parks the run for a person: another attempt would end the same."""
