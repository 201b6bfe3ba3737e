"""The host's functions, as componentize-py binds them.

Inside of a plugin the bindings are generated when it is built, and found first. Outside (an editor, a test) those
that lie beside this file have the same types and no host behind them.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

try:
    import bulkhead_wit  # noqa: F401
except ModuleNotFoundError:
    sys.path.append(str(Path(__file__).parent / "bindings"))

from bulkhead_wit.imports import context, effects, log, state, types, usage
from componentize_py_types import Err

from .refusal import Denied, Invalid, Limit, NotFound, Other, Refusal

__all__ = ["Err", "asked", "context", "effects", "log", "state", "types", "usage"]

T = TypeVar("T")

_REFUSALS: dict[type, type[Refusal]] = {
    types.Refusal_Denied: Denied,
    types.Refusal_Limit: Limit,
    types.Refusal_Invalid: Invalid,
    types.Refusal_NotFound: NotFound,
    types.Refusal_Other: Other,
}


def asked(function: Callable[..., T], *arguments: object) -> T:
    """What the host answers; its refusal as an exception."""
    try:
        return function(*arguments)
    except Err as error:
        refusal = error.value
    raise _REFUSALS.get(type(refusal), Other)(refusal.value)
