"""What `farspan eval` measures: a model on this machine, or one behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farspan.cli.session import load_model
from farspan.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from farspan.endpoints.client import Client
    from farspan.measure.outcome import Subject
    from farspan.measure.settings import Settings

CONCURRENCY = 4


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What answers, as the command line names it. `url` is None for a model on this machine."""

    model: str | None
    url: str | None = None
    tokenizer: Path | None = None
    api: str | None = None
    concurrency: int | None = None
    dtype: str | None = None
    device: str | None = None
    ray: str | None = None
    recall: bool | None = None

    @contextmanager
    def subject(self) -> Iterator[Subject]:
        """What the runner measures, for as long as the block lasts."""
        if self.url is None:
            yield self.open()
            return
        from farspan.endpoints.client import Client, key_from_environment

        client = Client(self.url, key=key_from_environment(self.url))
        try:
            yield self._behind(client)
        finally:
            client.close()

    def _behind(self, client: Client) -> Subject:
        from farspan.endpoints.cache import Replies, default_folder
        from farspan.endpoints.openai import APIS, Api, EndpointModel
        from farspan.endpoints.tokens import Approximate, Exact
        from farspan.measure.remote import EndpointSubject

        given = self.api or "chat"
        api: Api | None = next((each for each in APIS if str(each) == given), None)
        if api is None:
            raise OptionError(f"there is no API {given!r}.{did_you_mean(given, APIS)} Give {' or '.join(APIS)}")
        cutter = Approximate() if self.tokenizer is None else Exact(self.tokenizer)
        at_once = CONCURRENCY if self.concurrency is None else self.concurrency
        replies = Replies(default_folder())
        return EndpointSubject(EndpointModel(client, self.model, cutter, api=api, concurrency=at_once, replies=replies))

    def open(self) -> Subject:
        """A model on this machine; called in every worker of a cluster too."""
        from farspan.measure.local import LocalModel

        return LocalModel(load_model(self.model, dtype=self.dtype, device=self.device), recall=bool(self.recall))

    @contextmanager
    def fan(self, subject: Subject, settings: Settings) -> Iterator[dict[str, Any]]:
        """How places are spread, as arguments of `run`: over a cluster, or several at once where a server works."""
        if self.ray is not None:
            from farspan.measure.ray_fan import RayFan

            where = subject.environment()
            with RayFan(
                self.ray,
                self.open,
                settings,
                like=subject.describe(),
                threads=where["threads"],
                gpu=where["device"].startswith("cuda"),
            ) as fan:
                yield {"fan": fan, "elsewhere": fan.environments}
        elif self.url is not None:
            from farspan.measure.fan import Threads

            workers = self.concurrency or CONCURRENCY
            yield {"fan": Threads(subject, settings.seed, workers, one_by_one=settings.until is not None)}
        else:
            yield {}

    def resumed(self, told: Mapping[str, Any]) -> Chosen:
        """The same, with what is not given taken from a run's manifest."""
        if told["kind"] == "endpoint":
            return replace(
                self, model=self.model or told["name"], url=self.url or told["source"], api=self.api or told["api"]
            )
        recall = self.recall or told.get("recall")
        return replace(self, model=self.model or told["model"], dtype=self.dtype or told["dtype"], recall=recall)


def chosen_by(
    model: str | None,
    name: str | None,
    endpoint: str | None,
    *,
    tokenizer: Path | None,
    api: str | None,
    concurrency: int | None,
    **local: Any,
) -> Chosen:
    """Settle MODEL, --model and --endpoint, and raise OptionError for options that do not go together."""
    url = endpoint if endpoint is not None else model if model is not None and "://" in model else None
    named = name if model == url or model is None else model
    if model is not None and model != url and name is not None:
        raise OptionError(f"two models are named, {model} and {name}; leave one out")
    for_servers = {"--tokenizer": tokenizer, "--api": api, "--concurrency": concurrency}
    for_here = {f"--{option}": value for option, value in local.items()}
    for option, value in (for_here if url is not None else for_servers).items():
        if value is not None:
            where = "a model on this machine" if url is not None else "an endpoint: give its --endpoint too"
            raise OptionError(f"{option} is for {where}")
    del local["batch"]  # of the run, not of the model
    return Chosen(model=named, url=url, tokenizer=tokenizer, api=api, concurrency=concurrency, **local)
