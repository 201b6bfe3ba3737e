"""A handler on the bindings of componentize-py, without any SDK: the event's data says what to do."""

import json
import os
import random
import socket
import sys
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import context, effects, log, state
from wit_world.imports.types import Draft, Event, Failure, Verdict


class Handler(exports.Handler):
    def handle(self, event: Event) -> None:
        match json.loads(event.data)["do"]:
            case "works":
                works()
            case "rejects":
                raise Err(Failure(Verdict.REJECT, "rejected", None, []))
            case "throws":
                raise ValueError("thrown")
            case "loops":
                while True:
                    pass
            case "allocates":
                kept = []
                while True:
                    kept.append(bytearray(1 << 20))


def works() -> None:
    log.write(log.Level.INFO, "works", [])
    print("printed")
    print("complained", file=sys.stderr)
    state.increment("count", 1)
    found = {
        "threshold": json.loads(context.config("threshold") or "null"),
        "now": time.time(),
        "random": random.Random().random(),
        "environment": dict(os.environ),
        "files": files(),
        "network": network(),
    }
    effects.emit(Draft("orders.foreign", None, None, "application/json", json.dumps(found).encode(), []))


def files() -> str:
    try:
        return open("/etc/passwd").read()
    except OSError as error:
        return type(error).__name__


def network() -> str:
    try:
        socket.socket().connect(("127.0.0.1", 80))
    except OSError as error:
        return type(error).__name__
    return "connected"
