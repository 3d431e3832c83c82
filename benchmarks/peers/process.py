"""Our side of the protocol: a peer as a child process that works only while it is asked to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.peers.child import Took

ROOT = Path(__file__).parents[2]


class PeerFailed(RuntimeError):
    """The peer's process ended; its own message stands above."""


class Peer:
    """`python -m module arguments` in another environment's interpreter, until the `with` ends."""

    def __init__(self, python: Path | str, module: str, arguments: Sequence[str] = ()) -> None:
        self.name = module.rsplit(".", 1)[-1]
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "TQDM_DISABLE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.about: dict[str, str] = self._reply()["about"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(BrokenPipeError), self._process:
            pass  # its input ends, and it with that

    def read(self, ids: Sequence[int]) -> tuple[float, int]:
        """Read token ids -> seconds, and bytes of keys and values that are held then."""
        reply = self._asked(do="read", ids=list(ids))
        return reply["seconds"], reply["held"]

    def ask(self, ids: Sequence[int], tokens: int) -> Took:
        """Answer a question's ids in `tokens` tokens, after what was read last."""
        return Took(**self._asked(do="ask", ids=list(ids), tokens=tokens))

    def _asked(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._ended() from None
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> PeerFailed:
        return PeerFailed(f"{self.name} ended with status {self._process.wait()} and without a reply")
