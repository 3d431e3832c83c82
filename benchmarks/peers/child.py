"""A peer's side of the protocol: requests in, replies out, one line of JSON each. The standard library alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Took(NamedTuple):
    """Seconds to the first token of an answer and to its last, and the tokens."""

    first: float
    total: float
    tokens: list[int]


def serve(
    read: Callable[[list[int]], tuple[float, int]], ask: Callable[[list[int], int], Took], about: dict[str, str]
) -> None:
    """Reply to requests until there are no more.

    `read(ids)` -> (seconds, bytes held), into a fresh cache; `ask(ids, tokens)` answers in so many tokens after what
    was read last. `about` is what is running. Whatever the peer prints goes where errors go, so that it cannot pass for
    a reply.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(**what: Any) -> None:
        print(json.dumps(what), file=replies, flush=True)

    reply(about=about)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "read":
            seconds, held = read(request["ids"])
            reply(seconds=seconds, held=held)
        else:
            reply(**ask(request["ids"], request["tokens"])._asdict())
