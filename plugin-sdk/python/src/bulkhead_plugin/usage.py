"""Costs that only the plugin knows; they appear on the tenant's usage statement."""

from . import _host


def count(unit: str, amount: float = 1.0) -> None:
    """Counts an amount of a unit: tokens, pages, cents."""
    _host.asked(_host.usage.count, unit, float(amount))
