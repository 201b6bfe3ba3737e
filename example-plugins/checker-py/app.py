"""Does what the event says: `{"do": "<name>"}` calls the function of that name."""

import ast
import datetime as datetime_module
import logging
import os
import random
import secrets
import socket
import sys
import time
import urllib.request
import uuid
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from bulkhead_plugin import Draft, Event, Refusal, Reject, Retry
from bulkhead_plugin import context, effects, handler, log, state, transformer, usage

DEEDS = {}


def deed(function):
    DEEDS[function.__name__] = function
    return function


@handler
def handle(event: Event) -> None:
    DEEDS[event.json()["do"]](event)


@transformer
def transform(event: Event):
    match event.json()["do"]:
        case "drop":
            return None
        case "map":
            return event.draft({"mapped": True})
        case "split":
            return (Draft("orders.part", str(part), key=event.key) for part in range(3))
        case "pass":
            return [event.draft()]
        case "wrong":
            return 7
    raise Reject("nothing to do")


@deed
def everything(event):
    """Every function of the contract."""
    this = context.current()
    assert (this.plugin, this.rule, this.attempt) == ("guest", "flag-orders", 1), this
    assert event.time == this.now and isinstance(event.time, datetime_module.datetime), (event.time, this.now)
    assert context.config("threshold") == 5 and context.config("none", "d") == "d"
    assert context.field("/customer/country") == "DE" and context.field("/none") is None
    assert len(context.secret("token")) == 15
    assert len(context.random(100_000)) == 100_000
    assert effects.emit("orders.x", {"ü": [1, None]}, subject="s", key="k", attributes={"severity": 3})
    assert effects.emit(Draft("orders.y", b"\x00\xff"))
    assert effects.deliver("crm", "text", attributes={"x-priority": "high"})
    timer = effects.schedule(timedelta(seconds=1.5), "orders.late", 1, name="late")
    effects.cancel(timer)
    effects.schedule(timedelta(minutes=1), Draft("orders.later"))
    state.set("k:1", {"a": 1}, ttl=timedelta(days=1))
    state.set_bytes("k:2", b"\x01")
    assert state.get("k:1") == {"a": 1} and state.get_bytes("k:2") == b"\x01" and state.get("k:3", 0) == 0
    assert state.increment("n", 2) == 2 and state.increment("n") == 3 and state.get("n") == 3
    assert list(state.keys("k:")) == ["k:1", "k:2"]
    state.delete("k:1")
    usage.count("pages", 2)
    usage.count("pages")
    assert b"\xfc".decode("latin-1") == b"\xff\xfe\xfc\x00".decode("utf-16") == "ü"
    assert random.Random("a seed").random() == random.Random("a seed").random()


@deed
def logs(event):
    print("printed", 1)
    print("one\ntwo", end="")
    print("to stderr", file=sys.stderr)
    log.debug("by log", score=0.5)
    logging.getLogger("shop").warning("by %s", "logging", extra={"order": 7})
    logging.getLogger().debug("too quiet")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("caught")


@deed
def clock(event):
    now = context.current().now
    assert time.time() == now.timestamp() and time.time_ns() == round(now.timestamp() * 1000) * 1_000_000
    assert datetime.now(timezone.utc) == now == datetime_module.datetime.now().replace(tzinfo=timezone.utc)
    assert datetime.utcnow() == now.replace(tzinfo=None) and date.today() == now.date() == datetime.today().date()
    assert time.monotonic() == time.perf_counter() and time.monotonic_ns() == time.perf_counter_ns()
    assert time.strftime("%Y-%m-%d %H:%M") == now.strftime("%Y-%m-%d %H:%M") == f"{now:%Y-%m-%d %H:%M}"
    assert time.gmtime().tm_year == time.localtime().tm_year == now.year and str(now.year) in time.ctime()
    parsed = datetime.strptime("2026-02-03", "%Y-%m-%d")
    assert (parsed + timedelta(days=1)).day == 4 and isinstance(parsed, datetime)
    assert repr(datetime(2026, 1, 2)) == "datetime.datetime(2026, 1, 2, 0, 0)"
    assert issubclass(type(now), datetime) and not isinstance(date.today(), datetime)
    try:
        time.sleep(1)
    except RuntimeError as error:
        log.info(error)


@deed
def draws(event):
    numbers = [random.random(), random.randint(1, 1 << 60), secrets.token_hex(8), str(uuid.uuid4())]
    numbers += [os.urandom(8).hex(), random.SystemRandom().random(), random.Random().random()]
    state.set("drawn", numbers)


@deed
def raises(event):
    amounts = {"a": 1}
    total = amounts["missing"]
    log.info(total)


@deed
def retries(event):
    effects.emit("orders.never")
    raise Retry("the price list is not here yet", after=timedelta(seconds=30), list="eur")


@deed
def rejects(event):
    raise Reject("an order without a customer")


@deed
def denied(event):
    effects.emit("secret.things")


@deed
def refused(event):
    for ask in (lambda: effects.deliver("nowhere", 1), lambda: state.set("", 1), lambda: context.secret("none")):
        try:
            ask()
        except Refusal as refusal:
            log.info(f"{type(refusal).__name__}: {refusal}")


@deed
def exits(event):
    sys.exit(3)


@deed
def no_json(event):
    Event.json(Event(**{**{name: getattr(event, name) for name in event.__slots__}, "data": b"{"}))


@deed
def imports_late(event):
    import sqlite3  # noqa: F401


@deed
def opens(event):
    """Nothing of an operating system is there, and each asks in its own way."""
    asks = [
        lambda: open("/etc/passwd"),
        lambda: Path("/etc/passwd").read_text(),
        lambda: os.listdir("/"),
        lambda: os.stat("."),
        lambda: socket.create_connection(("127.0.0.1", 80)),
        lambda: socket.socket(),
        lambda: urllib.request.urlopen("http://127.0.0.1/"),
    ]
    for ask in asks:
        try:
            ask()
        except OSError as error:
            log.info(error)
    assert not os.path.exists("/etc") and not os.environ.get("HOME")


@deed
def recurses(event):
    recurses(event)


@deed
def evaluates(event):
    """Text that is no Python, where the parser does not ask for a file."""
    for evaluate in (eval, ast.literal_eval):
        try:
            evaluate("1 +")
        except SyntaxError as error:
            log.info(error.msg)


@deed
def loops(event):
    while True:
        pass


@deed
def allocates(event):
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


@deed
def counts_in_a_global(event):
    global calls
    calls += 1
    log.info(calls)


calls = 0
