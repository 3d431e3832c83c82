"""A peer for test_peers: quick, and easy to foresee."""

from __future__ import annotations

from benchmarks.peers.child import Took, serve


class Echo:
    """A peer that answers with what it read."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def read(self, ids: list[int]) -> tuple[float, int]:
        print("chatter of a library must not pass for a reply")
        self.seen = ids
        return 0.5, len(ids)

    def ask(self, ids: list[int], tokens: int) -> Took:
        if tokens > len(self.seen):
            raise ValueError("there is not so much")
        return Took(0.25, 0.75, [*ids, *self.seen][:tokens])


def main() -> None:
    echo = Echo()
    serve(echo.read, echo.ask, {"echo": "1"})


if __name__ == "__main__":
    main()
