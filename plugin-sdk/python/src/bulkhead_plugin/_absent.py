"""What is not there: files and the network. The interpreter would end the plugin where an ordinary program gets an error,
so the error is raised here, with a word about what to do instead.
"""

import builtins
import errno
import io
import os
import sys
from typing import Any, NoReturn

#: Functions that look at files by their names.
_FILES = (
    "access chdir chmod link listdir lstat mkdir open readlink remove rename replace rmdir scandir stat symlink truncate"
    " unlink utime"
).split()

#: Functions that begin with the network.
_NETWORK = "create_connection getaddrinfo gethostbyaddr gethostbyname gethostname getnameinfo socketpair".split()


def take_away() -> None:
    """From here on, whoever asks for a file or the network is told that there is none."""
    for module, names in ((builtins, ["open"]), (io, ["open"]), (os, _FILES)):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, _no_file)
    socket: Any = sys.modules.get("socket")
    if socket is not None:
        for name in _NETWORK:
            setattr(socket, name, _no_network)
        socket.socket.__init__ = _no_network


def _no_file(path: object = None, *arguments: object, **options: object) -> NoReturn:
    text = "a plugin has no files: read data when it is built (at the top of a module), and keep it in state"
    raise FileNotFoundError(errno.ENOENT, text, path if isinstance(path, (str, bytes, os.PathLike)) else None)


def _no_network(*arguments: object, **options: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "a plugin has no sockets: deliver through a sink (effects.deliver)")
