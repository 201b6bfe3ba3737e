"""Writes events to an outbox with psycopg, each in the transaction that places an order.

usage: write_outbox.py DATABASE_URL COUNT

Every third order is rolled back, and so is its event. Prints how many were committed.
"""

import sys

import psycopg
from psycopg.types.json import Jsonb

url, count = sys.argv[1], int(sys.argv[2])
committed = 0
with psycopg.connect(url) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS orders (number BIGINT PRIMARY KEY)")
    connection.commit()
    for number in range(count):
        connection.execute("INSERT INTO orders (number) VALUES (%s)", [number])
        connection.execute(
            "INSERT INTO bulkhead_outbox (tenant, type, partitionkey, data) VALUES (%s, %s, %s, %s)",
            ["acme" if number % 2 == 0 else "globex", "outbox", "one", Jsonb({"number": number})],
        )
        if number % 3 == 2:
            connection.rollback()
        else:
            connection.commit()
            committed += 1
print(committed)
