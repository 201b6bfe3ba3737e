#!/usr/bin/env python3
"""Selects GitHub webhook payloads and writes them as CloudEvents, one a line.

    npm pack @octokit/webhooks-examples@7.6.1 && tar xzf octokit-webhooks-examples-7.6.1.tgz
    python3 select.py package/api.github.com/index.json > events.ndjson

The same input gives the same bytes: payloads are taken by rule, ids come from their content, times from a
counter. README.md says what the rule is.
"""

import datetime
import hashlib
import json
import re
import sys

# How many of a kind; one of every other. These are the kinds that people automate most.
MORE = {
    "check_run": 2,
    "create": 2,
    "discussion": 2,
    "issue_comment": 3,
    "issues": 6,
    "pull_request": 6,
    "pull_request_review": 2,
    "push": 4,
    "release": 3,
    "repository": 3,
    "star": 2,
    "workflow_job": 3,
    "workflow_run": 3,
}
# Of which actions first; then the others in the order of the package.
FAVOURITES = ["opened", "created", "published", "closed", "completed", "synchronize", "labeled", "submitted", "edited"]
FIRST = datetime.datetime(2026, 1, 5, 8, 0, tzinfo=datetime.timezone.utc)
STEP = datetime.timedelta(seconds=37)

# A signed link in one payload carries the name of an access key; long dead, but scanners would stop at it.
SIGNATURE = re.compile(r"\?X-Amz-[^\"]*")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
KEPT_DOMAINS = ("example.com", "users.noreply.github.com", "github.com")


def chosen(kind, examples):
    """The first payload of each action, then further ones, up to the number for the kind."""
    seen, first, further = set(), [], []
    for payload in examples:
        action = payload.get("action")
        (further if action in seen else first).append(payload)
        seen.add(action)
    first.sort(key=lambda payload: rank(payload.get("action")))
    return (first + further)[: MORE.get(kind, 1)]


def rank(action):
    return FAVOURITES.index(action) if action in FAVOURITES else len(FAVOURITES)


def without_traces(text):
    """Mail addresses of people become one that belongs to nobody; those of bots and examples stay."""

    def replace(match):
        address = match.group(0)
        return address if address.rsplit("@", 1)[1] in KEPT_DOMAINS else "octocat@example.com"

    return EMAIL.sub(replace, SIGNATURE.sub("", text))


def event(kind, payload):
    text = without_traces(json.dumps(payload, separators=(",", ":"), ensure_ascii=False))
    payload = json.loads(text)
    # A repository is its full name, an organisation its login, and an app's own events belong to neither.
    repository = payload.get("repository")
    owner = payload.get("organization") or {}
    subject = repository["full_name"] if isinstance(repository, dict) else owner.get("login")
    action = payload.get("action")
    return {
        "specversion": "1.0",
        "id": hashlib.sha256(f"{kind} {text}".encode()).hexdigest()[:32],
        "source": "https://github.com" + (f"/{subject}" if subject else ""),
        "type": ".".join(["github", kind] + ([action] if action else [])),
        **({"subject": subject} if subject else {}),
        "datacontenttype": "application/json",
        "data": payload,
    }


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        kinds = json.load(file)
    events = {}
    for kind in kinds:
        for payload in chosen(kind["name"], kind["examples"]):
            this = event(kind["name"], payload)
            events[this["id"]] = this
    # By id, which is by chance: kinds and repositories come mixed, as they do from a webhook.
    for number, key in enumerate(sorted(events)):
        this = events[key]
        time = (FIRST + number * STEP).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = {**{name: this[name] for name in this if name != "data"}, "time": time, "data": this["data"]}
        print(json.dumps(line, separators=(",", ":"), ensure_ascii=False))


main()
