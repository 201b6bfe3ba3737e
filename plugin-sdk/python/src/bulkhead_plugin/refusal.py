"""Refusals: the host's answer to a call that it does not carry out. The plugin may go on; nothing was written."""


class Refusal(Exception):
    """The host refused a call."""

    #: Whether the same call may be carried out later without anybody doing anything.
    may_pass = False


class Denied(Refusal):
    """The tenant or the operator did not grant this; see `[grants]` in the plugin's manifest."""


class Limit(Refusal):
    """A limit of this invocation or of the tenant's plan; the text names it."""

    may_pass = True


class Invalid(Refusal):
    """The argument is malformed; the text says how."""


class NotFound(Refusal):
    """No such sink, timer or name."""


class Other(Refusal):
    """Something that this version of the SDK has no word for."""

    may_pass = True
