"""An OpenAI-compatible server as a model of access `text`: a context is text, put before every question."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

from farspan.endpoints.cache import Replies
from farspan.endpoints.client import Client
from farspan.endpoints.tokens import Cutter
from farspan.errors import EndpointError, PlanDoesNotApply, UsageError
from farspan.methods.compress.base import Compressor
from farspan.plan import Plan
from farspan.text import Asked, Document, Segment

Api = Literal["chat", "completions"]
APIS: tuple[Api, ...] = get_args(Api)
PLAIN = "\n\nQuestion: {question}\nAnswer:"
"""Behind the text where a server takes plain text, as a local model without a chat template is asked."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered. Token counts are the server's own, None where it gives none."""

    text: str
    finish: Literal["stop", "length"]
    prompt: str
    prompt_tokens: int | None
    reply_tokens: int | None
    seconds: float
    """From request to reply, when it was first asked for."""
    cached: bool


@dataclass(frozen=True)
class TextContext:
    """What is left of a text under a plan: text. `kept` are the character spans [start, end) of the original."""

    model: EndpointModel
    plan: Plan
    original: str
    kept: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """What every question is put behind."""
        return "".join(self.original[start:end] for start, end in self.kept)

    def ask(self, questions: Sequence[str | Asked], *, max_new_tokens: int = 256) -> list[Reply | EndpointError]:
        """One reply per question, in order, several at a time; what goes wrong for one is its reply."""
        asked = [question if isinstance(question, Asked) else Asked(question) for question in questions]
        with ThreadPoolExecutor(self.model.concurrency) as pool:
            return list(pool.map(lambda each: self._asked(each, max_new_tokens), asked))

    def _asked(self, asked: Asked, max_new_tokens: int) -> Reply | EndpointError:
        try:
            return self.model.complete(self.text, asked, max_new_tokens)
        except EndpointError as error:
            return error


class EndpointModel:
    """A model behind a base URL such as `http://localhost:8000/v1`. Decoding is greedy (temperature 0).

    `name` may be left out where the server has one model. Raises EndpointError where it cannot be reached.
    """

    access: Literal["text"] = "text"

    def __init__(
        self,
        client: Client,
        name: str | None,
        cutter: Cutter,
        *,
        api: Api = "chat",
        concurrency: int = 4,
        replies: Replies | None = None,
    ) -> None:
        if concurrency < 1:
            raise UsageError(f"--concurrency {concurrency} asks nobody; give 1 or more")
        self.client, self.cutter, self.api, self.concurrency, self.replies = client, cutter, api, concurrency, replies
        self.name = name or self._only_model()
        self._limit, self._turns = "max_tokens", threading.BoundedSemaphore(concurrency)

    def _only_model(self) -> str:
        listed = self.client.get("/models").get("data")
        names = [str(each.get("id")) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        if len(names) != 1:
            raise UsageError(
                f"{self.client.url} serves {', '.join(names) or 'no model by name'}; name one with --model"
            )
        return names[0]

    def check(self, plan: Plan) -> None:
        """Raise PlanDoesNotApply for a plan that needs more of a model than text."""
        hidden = [method.name for method in plan.methods if method.access != "text" and method.slot != "order"]
        if hidden:
            raise PlanDoesNotApply(
                f"{' and '.join(hidden)} must see inside a model (access internals), and {self.client.url} shows text "
                f"only (access text). Use full or truncate:N, or a model on this machine"
            )

    def read(self, text: str, plan: str | Plan | None = None, *, question: str | None = None) -> TextContext:
        """What the plan leaves of a text; nothing is sent. Raises PlanDoesNotApply, DocumentError, BudgetError."""
        chosen = Plan.parse(plan)
        self.check(chosen)
        document = Document(text=text)
        compressor = chosen.get("compress")
        if not isinstance(compressor, Compressor):
            return TextContext(self, chosen, text, ((0, len(text)),))
        tokens = self.cutter.tokens(text)
        whole = Segment(
            source=document.source, document=0, start=0, end=len(text), token_start=0, token_end=len(tokens)
        )
        kept = compressor.compress([whole], question, compressor.reads(len(tokens)))
        spans = [tokens.spans[segment.token_start : segment.token_end] for segment in kept]
        ends = [(int(span[0, 0]), int(span[-1, 1])) for span in spans if len(span)]
        return TextContext(
            self, chosen, text, ((0, len(text)),) if len(kept) == 1 and kept[0] == whole else tuple(ends)
        )

    def complete(self, context: str, asked: Asked, max_new_tokens: int) -> Reply:
        """Ask the server, or find its reply among those kept; raises EndpointError."""
        prompt = self.prompt(context, asked)
        path = "/chat/completions" if self.api == "chat" else "/completions"
        said: dict[str, Any] = (
            {"messages": [{"role": "user", "content": prompt}]} if self.api == "chat" else {"prompt": prompt}
        )
        request = {"model": self.name, **said, "temperature": 0, "max_tokens": max_new_tokens}
        key = {"url": self.client.url, "path": path, **request}
        found = self.replies.find(key) if self.replies else None
        began = time.perf_counter()
        raw = found or {**self._posted(path, request), "farspan_seconds": 0.0}
        if found is None:
            raw["farspan_seconds"] = time.perf_counter() - began
        reply = self._reply(raw, prompt, cached=found is not None)
        if found is None and self.replies:
            self.replies.keep(key, raw)
        return reply

    def prompt(self, context: str, asked: Asked) -> str:
        """The text of one request; raises EndpointError for what the chat form cannot say."""
        if asked.kind == "continuation":
            if self.api == "chat":
                raise EndpointError("a text that goes on word for word needs plain completions: give --api completions")
            return context + asked.words
        if not asked.text.strip():
            raise EndpointError("the question is empty")
        if self.api == "chat":
            return f"{context}\n\n{asked.text}" + (f"\n{asked.prefix}" if asked.prefix else "")
        between = " " if asked.prefix and not asked.prefix[0].isspace() else ""
        return context + PLAIN.format(question=asked.text) + between + asked.prefix

    def _posted(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Some servers have renamed the limit on new tokens, and say so."""
        limit = request["max_tokens"]
        rest = {name: value for name, value in request.items() if name != "max_tokens"}
        try:
            with self._turns:
                return self.client.post(path, {**rest, self._limit: limit})
        except EndpointError as error:
            if "max_completion_tokens" not in str(error) or self._limit == "max_completion_tokens":
                raise
            self._limit = "max_completion_tokens"
            return self._posted(path, request)

    def _reply(self, raw: dict[str, Any], prompt: str, *, cached: bool) -> Reply:
        try:
            choice, usage = raw["choices"][0], raw.get("usage") or {}
            text = choice["message"]["content"] if self.api == "chat" else choice["text"]
            finish = choice.get("finish_reason") or "stop"
            if not isinstance(text, str | None):
                raise TypeError(f"its text is a {type(text).__name__}")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EndpointError(f"{self.client.url}: the reply has not the form of the API ({error!r})") from error
        if finish not in ("stop", "length"):
            raise EndpointError(f"{self.client.url}: the server ended the reply with {finish!r}")
        return Reply(
            text=(text or "").lstrip(),
            finish=finish,
            prompt=prompt,
            prompt_tokens=usage.get("prompt_tokens"),
            reply_tokens=usage.get("completion_tokens"),
            seconds=float(raw.get("farspan_seconds", 0.0)),
            cached=cached,
        )
