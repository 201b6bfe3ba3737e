#!/usr/bin/env python3
"""Generates a stream of orders as CloudEvents, one a line: python3 generate.py > events.ndjson

The same seed gives the same bytes on every version of Python: only `Random.random` is used, whose sequence is
guaranteed. README.md says what is in the stream.
"""

import datetime
import json
import random

SEED = 20260105
ORDERS = 150
START = datetime.datetime(2026, 1, 5, 9, 0, tzinfo=datetime.timezone.utc)

# Euros for one unit.
RATES = {"EUR": 1.0, "DKK": 0.134, "SEK": 0.087, "GBP": 1.17, "USD": 0.92}
COUNTRIES = {"DE": "EUR", "FR": "EUR", "NL": "EUR", "DK": "DKK", "SE": "SEK", "GB": "GBP", "US": "USD"}
CHANNELS = ["web", "web-mobile", "app", "phone", "partner"]
# In euros. The last one is in no price table: an article that nobody told the plugins about.
PRICES = {"KB-87": 89.0, "MS-12": 39.5, "HD-04": 129.0, "CB-30": 9.9, "DK-01": 219.0, "WC-77": 74.0, "XX-99": 15.0}

_random = random.Random(SEED).random


def below(limit):
    return int(_random() * limit)


def pick(values):
    return values[below(len(values))]


def chance(share):
    return _random() < share


def customers():
    names = ["amira", "bent", "chloe", "dario", "elif", "farid", "greta", "henk", "ines", "jonas"]
    for number in range(40):
        name = names[number % len(names)]
        country = pick(list(COUNTRIES))
        yield {"id": f"C-{100 + number}", "email": f"{name}{number}@example.com", "country": country}


CUSTOMERS = list(customers())


def order(number, customer, quantity_max=3):
    currency = COUNTRIES[customer["country"]]
    items = []
    for sku in sorted(PRICES, key=lambda _: _random())[: 1 + below(4)]:
        price = round(PRICES[sku] / RATES[currency] * (1 - below(20) / 100), 2)
        items.append({"sku": sku, "quantity": 1 + below(quantity_max), "price": price})
    return priced({
        "id": f"A-{1000 + number}",
        "customer": dict(customer),
        "channel": pick(CHANNELS),
        "total": 0,
        "currency": currency,
        "rate": RATES[currency],
        "items": items,
    })


def priced(this):
    this["total"] = round(sum(item["quantity"] * item["price"] for item in this["items"]), 2)
    return this


class Stream:
    """Numbers and times events; within an order nothing comes before the order itself."""

    def __init__(self):
        self.time = START
        self.events = []

    def add(self, kind, data, of, **more):
        self.time += datetime.timedelta(seconds=5 + below(90))
        self.events.append({
            "specversion": "1.0",
            "id": f"shop-{len(self.events) + 1:04}",
            "source": "/shop/" + kind.split(".")[0],
            "type": kind,
            "subject": of["id"],
            "time": self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "datacontenttype": "application/json",
            "partitionkey": of["customer"]["id"],
            "correlationid": "order-" + of["id"],
            **more,
            "data": data,
        })

    def payment(self, kind, this, amount):
        data = {
            "id": "P-" + this["id"][2:],
            "order": this["id"],
            "customer": {"id": this["customer"]["id"]},
            "method": pick(["card", "invoice", "transfer"]),
            "amount": amount,
            "currency": this["currency"],
            "rate": this["rate"],
        }
        self.add(f"payments.{kind}", data, this)

    def life(self, this):
        """An order and, mostly, its payment; sometimes a change or a refund."""
        self.add("orders.created", this, this)
        if chance(0.15):
            changed = json.loads(json.dumps(this))
            changed["items"][0]["quantity"] += 1
            this = priced(changed)
            self.add("orders.updated.items", this, this)
        if chance(0.1):
            self.add("orders.updated.address", this, this)
        if chance(0.1):
            self.payment("failed", this, this["total"])
        elif chance(0.6):
            self.payment("captured", this, this["total"])
            if chance(0.08):
                self.payment("refunded", this, round(this["total"] / 2, 2))
        if chance(0.05):
            self.add("orders.cancelled", {"id": this["id"], "customer": this["customer"], "reason": "changed my mind"}, this)


# What can be wrong with an order, and how it becomes so.
POISON = [
    ("the total is below zero", lambda data: {**data, "total": -data["total"]}),
    ("the total is text", lambda data: {**data, "total": "a lot"}),
    ("there is no customer", lambda data: {name: data[name] for name in data if name != "customer"}),
    ("the data is a list", lambda data: [data["id"], data["total"]]),
    ("the customer is null", lambda data: {**data, "customer": None}),
]


def main():
    stream = Stream()
    accidents = iter(POISON)
    every = ORDERS // (len(POISON) + 1)
    number = 0
    while number < ORDERS:
        # Some customers order much more often than others.
        customer = CUSTOMERS[int(len(CUSTOMERS) * _random() ** 2.5)]
        if number == ORDERS // 2:
            # A burst of one customer, from abroad, and large: what a fraud score is for.
            for _ in range(6):
                abroad = {**CUSTOMERS[0], "country": "US" if CUSTOMERS[0]["country"] != "US" else "FR"}
                stream.life(order(number, abroad, quantity_max=20))
                number += 1
        large = chance(0.04)
        stream.life(order(number, customer, quantity_max=30 if large else 3))
        number += 1
        if number % every == 0 and (accident := next(accidents, None)):
            # The attribute says what is wrong, for tests to count.
            what, spoil = accident
            this = order(900 + number, pick(CUSTOMERS))
            stream.add("orders.created", spoil(this), this, poison=what)
    for event in stream.events:
        print(json.dumps(event, separators=(",", ":"), ensure_ascii=False))


main()
