"""What Python's own modules find in a plugin: the host's clock, randomness and log in place of an operating system's.

A plugin is an interpreter that was started when it was built, and frozen. From then on there is no file, no socket, no
clock and no entropy behind it: without this, `time.time()` would end the plugin and `random` would repeat itself.
Everything here is in force during calls only, so that modules find the real ones when they are loaded.
"""

from ._clock import Clock
from ._entropy import Entropy
from ._streams import Streams


class Runtime:
    """The parts, in the order in which a call needs them."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._entropy = Entropy()
        self._streams = Streams()

    def begin(self) -> None:
        """At the start of a call."""
        self._clock.begin()
        self._entropy.begin()
        self._streams.begin()

    def end(self) -> None:
        """At its end, however it ends."""
        self._streams.end()
        self._entropy.end()
        self._clock.end()
