"""The attempt's randomness, under the names by which Python's programs ask for it.

It differs between events and repeats on a re-execution. It is not for secrets that outlive the run: whoever can
re-execute the run can repeat it.
"""

import os
import random
from typing import Any

from . import context

#: More than any generator's states can be told apart by.
_SEED_BYTES = 32


class Entropy:
    """Feeds `random`, `secrets`, `uuid` and `os.urandom`."""

    def __init__(self) -> None:
        self._calling = False
        self._urandom = os.urandom
        self._seed = random.Random.seed
        os.urandom = self._bytes
        # Taken by name when `random` was loaded; `SystemRandom` and `secrets` draw from it.
        setattr(random, "_urandom", self._bytes)
        # A generator that is given no seed asks the system for one.
        setattr(random.Random, "seed", lambda generator, a=None, version=2: self._reseed(generator, a, version))
        random.seed = getattr(random, "_inst").seed
        # What a seed of text needs is loaded at its first use.
        random.Random("")

    def begin(self) -> None:
        self._calling = True
        random.seed()

    def end(self) -> None:
        self._calling = False

    def _reseed(self, generator: random.Random, a: Any, version: int) -> None:
        if a is None and self._calling:
            a = int.from_bytes(context.random(_SEED_BYTES), "little")
        self._seed(generator, a, version)

    def _bytes(self, length: int, /) -> bytes:
        return context.random(length) if self._calling else self._urandom(length)
