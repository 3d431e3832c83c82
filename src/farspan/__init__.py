"""farspan reads a context once, keeps what matters, and answers questions about it many times.

model = farspan.load("path-or-hub-id")             # or farspan.load() for the embedded model
context = model.read(documents, plan="snapkv:2048 | int8")
print(context.ask("Which port does the gateway use?").text)
context.save("book.ctx")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from farspan.budget import Budget
from farspan.errors import FarspanError
from farspan.plan import Plan

if TYPE_CHECKING:
    from farspan.context import Answer, Context
    from farspan.loading import load, prepare, profile
    from farspan.model import Model
    from farspan.runtime.hf_extend import extend
    from farspan.text import Document, Segment

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "Budget",
    "Context",
    "Document",
    "FarspanError",
    "Model",
    "Plan",
    "Segment",
    "extend",
    "load",
    "prepare",
    "profile",
]

_LAZY = {  # these need torch or numpy, which cost seconds: loaded when first asked for
    "Answer": "farspan.context",
    "Context": "farspan.context",
    "Document": "farspan.text",
    "Model": "farspan.model",
    "Segment": "farspan.text",
    "extend": "farspan.runtime.hf_extend",
    "load": "farspan.loading",
    "prepare": "farspan.loading",
    "profile": "farspan.loading",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'farspan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
