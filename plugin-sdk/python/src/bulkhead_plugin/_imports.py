"""Modules: all of them are loaded when the plugin is built, because there is no file to load one from afterwards."""

import codecs
import sys
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, FrozenImporter
from types import ModuleType


#: Encodings that events come in; each is a module, too.
_ENCODINGS = ("ascii", "cp1252", "idna", "latin-1", "utf-8-sig", "utf-16")


class _TooLate:
    """Says why a module is not found, where the interpreter would end the plugin."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        raise ModuleNotFoundError(
            f"`{name}` is not in this plugin: modules are loaded when it is built, so import it at the top of a file",
            name=name,
        )


def close_imports() -> None:
    """From here on no module is looked for in files."""
    for encoding in _ENCODINGS:
        codecs.lookup(encoding)
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, _TooLate()]
