"""Publishes events to a Redis stream with redis-py, as a platform's own service would.

usage: publish_stream.py REDIS_URL STREAM COUNT
"""

import json
import sys

import redis

url, stream, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
server = redis.Redis.from_url(url)
for number in range(count):
    event = {
        "specversion": "1.0",
        "id": f"py-{number}",
        "source": "/python",
        "type": "stream",
        "partitionkey": "one",
        # Whose events they are is the source's setting; this must change nothing.
        "tenant": "globex",
        "data": {"number": number},
    }
    server.xadd(stream, {"event": json.dumps(event)})
print(count)
