"""The public surface, frozen: what breaks here breaks somebody's program."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

import farspan
from farspan.context import Context
from farspan.model import Model

SURFACE = {
    "Answer", "Budget", "Context", "Document", "FarspanError", "Model", "Plan", "Segment", "extend", "load", "prepare",
    "profile",
}  # fmt: skip


def signature(thing: object) -> str:
    """Parameters without annotations: names, order, kinds and defaults are what callers depend on."""
    parameters = inspect.signature(thing).parameters.values()  # type: ignore[arg-type]
    return str(inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters]))


def test_the_names() -> None:
    assert set(farspan.__all__) == SURFACE
    assert set(farspan.__all__) <= set(dir(farspan))
    assert all(getattr(farspan, name) is not None for name in farspan.__all__)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        farspan.laod  # noqa: B018


@pytest.mark.parametrize(
    "thing, expected",
    [
        (farspan.load, "(path=None, *, tokenizer=None, dtype=None, device=None, device_map=None, weights=None)"),
        (farspan.prepare, "(hf_model)"),
        (farspan.extend, "(encoder, plan, *, length=None)"),
        (farspan.profile, "(model=None, **options)"),
        (Model.profile, "(self, *, length=1024, texts=8, seed=0, progress=None)"),
        (Model.read, "(self, documents, plan=None, *, probe=None, length=None, progress=None)"),
        (Model.read_batch, "(self, batch, plan=None, *, probes=None, length=None, progress=None, trace=False)"),
        (Model.append, "(self, context, documents, *, probe=None, progress=None)"),
        (Model.open, "(self, path)"),
        (Context.ask, "(self, question, **options)"),
        (Context.stream, "(self, question, **options)"),
        (Context.inputs, "(self, question)"),
        (Context.fork, "(self)"),
        (Context.append, "(self, documents, **options)"),
        (Context.save, "(self, path, *, codec=None, level=None)"),
        (Context.inspect, "(self)"),
        (farspan.Plan.parse, "(text)"),
        (farspan.Budget.parse, "(given)"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__qualname__,
)
def test_signatures(thing: object, expected: str) -> None:
    assert signature(thing) == expected


def test_what_an_answer_and_a_context_tell() -> None:
    assert set(farspan.Answer.__dataclass_fields__) == {
        "question", "text", "token_ids", "finish_reason", "usage", "timings", "context", "recall",
    }  # fmt: skip
    told = {*dir(Context), *Context.__dataclass_fields__}
    assert told >= {
        "append", "ask", "beyond_trained", "elsewhere_bytes", "fork", "full_bytes", "held", "held_bytes", "inputs",
        "inspect", "locate", "next_position", "plan", "save", "seen", "settled_plan", "stream", "token_ids",
    }  # fmt: skip


@pytest.mark.parametrize("statement", ["import farspan", "import farspan.cli"])
def test_importing_loads_neither_torch_nor_transformers(
    statement: str, record_property: Callable[[str, object], None]
) -> None:
    code = (
        f"import sys, time; began = time.perf_counter(); {statement}; took = time.perf_counter() - began; "
        "heavy = {'torch', 'transformers', 'tokenizers', 'safetensors'} & set(sys.modules); "
        "print(f'{took:.3f}'); sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    began = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    record_property("seconds", run.stdout.strip())
    print(f"{statement}: {run.stdout.strip()} s of {time.perf_counter() - began:.3f} s (aim: under 0.3 s)")
