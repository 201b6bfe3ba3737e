"""What every plugin's entry point shares; the build writes one that says which module and which roles."""

from . import _absent, _imports, _plugin, _traces
from ._host import types


class Handler:
    """The contract's `handler`."""

    def handle(self, event: types.Event) -> None:
        _plugin.handle(event)


class Transformer:
    """The contract's `transformer`."""

    def transform(self, event: types.Event) -> list[types.Draft]:
        return _plugin.transform(event)


def ready(*roles: str) -> None:
    """The plugin's modules are loaded: checks that they have what the component says, and closes the doors."""
    for role in roles:
        _plugin.function_of(role)
    _traces.keep_sources()
    _imports.close_imports()
    _absent.take_away()
