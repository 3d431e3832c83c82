"""A plan: which methods act on a context, and with which parameters; pure data that reads, prints and hashes.

As text, methods are joined by ` | ` in any order, each `name`, `name:budget` or `name(parameter=value, ...)`:
`snapkv:2048 | int4`. Wrong combinations fail here, when the plan is built, with the reason.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from farspan import method_values
from farspan.budget import Budget
from farspan.errors import PlanError, did_you_mean
from farspan.method_values import BUDGET_FORMS, DEFAULT
from farspan.registry import Method, find, parameters, table

if TYPE_CHECKING:
    from farspan.methods.order import Order

SLOTS = (
    "compress", "order", "positions", "prefill", "score", "allocate", "fold", "store", "place", "fetch",
    "parallel", "speculate", "constrain",
)  # fmt: skip
RETAIN = ("score", "allocate", "fold")
DEFAULT_ORDER = "stream"
VERSION = 1

_DROPPING = ("compress", *RETAIN)
_GRAMMAR = "A plan is methods joined by ' | ', each written name, name:budget or name(parameter=value, ...)."

_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_METHOD = re.compile(
    r"\s*(?P<name>[\w-]+)\s*(?::(?P<budget>[^|()]*))?"
    rf"(?:\((?P<parameters>(?:{_QUOTED}|[^()'\"])*)\)\s*)?(?P<end>\||$)",
    re.ASCII | re.DOTALL,
)
_PARAMETER = re.compile(rf"\s*(?P<name>\w+)\s*=\s*(?P<value>{_QUOTED}|[^,='\"]*)\s*(?:,|$)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, repr=False)
class Plan:
    """The methods that act on a context, at most one per slot, in slot order; a value to compare and hash.

    Building one completes it (an allocator brings its default scorer, which then has the budget) and checks
    it; PlanError, UnknownName or BudgetError says what is wrong. Equal plans print, serialise and hash alike:
    the default order is left out of `methods`, and a budget stands with the scorer.
    """

    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", _arranged(self.methods))

    @classmethod
    def parse(cls, text: "str | Plan | None") -> "Plan":
        """The plan that a string stands for, or a file that it names, `my.toml`; None is the default plan."""
        if isinstance(text, Plan):
            return text
        text = DEFAULT if text is None else text
        if not isinstance(text, str):
            raise PlanError(f"{text!r} is not a plan. {_GRAMMAR}")
        if text.endswith(".toml"):
            return import_module("farspan.plan_toml").load(text)
        written = list(_methods_in(text))
        plan = cls(tuple(_from_text(*method) for method in written if method.name != DEFAULT))
        if any(method.name == DEFAULT for method in written):
            _check_full(written, plan)
        return plan

    @classmethod
    def from_json(cls, data: "str | Mapping[str, Any]") -> "Plan":
        """The plan that `to_json` wrote, as object or text; parameters it lacks have their defaults."""
        try:
            loaded = json.loads(data) if isinstance(data, str) else data
            version = loaded["version"]
            entries = [(str(entry["name"]), dict(entry["parameters"])) for entry in loaded["methods"]]
        except (ValueError, TypeError, KeyError) as error:
            raise PlanError(f"This is not the JSON form of a plan: {type(error).__name__} {error}.") from None
        if version != VERSION:
            raise PlanError(f"This plan has version {version!r}, and this farspan reads version {VERSION}.")
        return cls(tuple(method_values.build(name, values) for name, values in entries))

    def to_json(self) -> dict[str, Any]:
        """The plan as an object for `json.dumps`: every parameter explicit, the order always included."""
        methods = sorted({*self.methods, self.order}, key=_slot_index)
        return {
            "version": VERSION,
            "methods": [{"name": method.name, "parameters": method_values.values(method)} for method in methods],
        }

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that name this plan, the same in every process; of an artefact, its content."""
        named = self.to_json()
        for entry in named["methods"]:
            method = find(entry["name"])
            for name in method.artefacts:
                digest = import_module(method.artefact_module).digest
                entry["parameters"][name] = digest(entry["parameters"][name])
        canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return sha256(canonical.encode("ascii")).hexdigest()[:16]

    def get(self, slot: str) -> Method | None:
        """The method in that slot, or None; the slot `order` is never empty."""
        if slot not in SLOTS:
            raise PlanError(f"There is no slot {slot!r}.{did_you_mean(slot, SLOTS)} Slots: {', '.join(SLOTS)}.")
        found = next((method for method in self.methods if method.slot == slot), None)
        return find(DEFAULT_ORDER)() if found is None and slot == "order" else found

    @property
    def order(self) -> "Order":
        """The order of reading: the plan's own, or `stream`."""
        return cast("Order", self.get("order"))

    @property
    def budget(self) -> Budget | None:
        """How much may be held, or None where the plan drops nothing."""
        budgets = [_budget(method) for method in self.methods if method.slot in RETAIN]
        return next((budget for budget in budgets if budget is not None), None)

    @property
    def reading(self) -> tuple[object, ...]:
        """What a read goes by: plans that are equal in this can share one reading (`Context.under`)."""
        in_bytes = self.budget is not None and self.budget.kind == "bytes"  # which an index counts towards
        parts = (method if in_bytes else method.reading() for method in self.methods)
        return tuple(part for part in parts if part is not None)

    def __str__(self) -> str:
        """The canonical text: slots in order, and only what differs from the defaults."""
        return " | ".join(method_values.text(method) for method in self.methods) or DEFAULT

    def __repr__(self) -> str:
        return f"Plan.parse({str(self)!r})"


def _arranged(methods: Iterable[Method]) -> tuple[Method, ...]:
    by_slot: dict[str, Method] = {}
    for method in (method_values.typed(method) for method in methods):
        if method.slot not in SLOTS:
            raise PlanError(f"{method.name!r} is of the family {method.family!r}: plans have no slot for it.")
        other = by_slot.setdefault(method.slot, method)
        if other is not method:
            raise PlanError(
                f"{other.name!r} and {method.name!r} both fill the slot {method.slot!r}; "
                "a plan has one method per slot. Take one of them out."
            )
    _settle_budget(by_slot)
    arranged = sorted(by_slot.values(), key=_slot_index)
    for method in arranged:
        _check_slots(method, by_slot)
        method_values.naming(method.name, method.check)
    # The default order is what a plan without one means, so both are one plan.
    return tuple(method for method in arranged if method != find(DEFAULT_ORDER)())


def _settle_budget(by_slot: dict[str, Method]) -> None:
    """Give the retain slots their default scorer if they lack one, and the scorer the one budget there is."""
    given = [method for slot in RETAIN if (method := by_slot.get(slot)) and _budget(method)]
    if len(given) > 1:
        both = " and ".join(f"{method.name}:{_budget(method)}" for method in given)
        raise PlanError(f"{both}: score, allocate and fold share one budget per plan. Give one of them.")
    named = next((by_slot[slot] for slot in RETAIN if slot in by_slot), None)
    if named is None:
        return
    if "score" not in by_slot:
        by_slot["score"] = _default_scorer([by_slot[slot] for slot in RETAIN if slot in by_slot])
    scorer = by_slot["score"]
    if not any(parameter.name == "budget" for parameter in parameters(type(scorer))):
        return
    if not given:
        raise PlanError(f"{named.name!r} needs a budget: {BUDGET_FORMS.format(named.name)}.")
    by_slot[given[0].slot] = replace(given[0], budget=None)
    by_slot["score"] = replace(scorer, budget=_budget(given[0]))


def _default_scorer(completed: list[Method]) -> Method:
    wanted = {method.default_scorer: method.name for method in completed if method.default_scorer}
    if not wanted:
        listed = " and ".join(repr(method.name) for method in completed)
        raise PlanError(f"{listed} needs a scorer. {_choices('score')}")
    if len(wanted) > 1:
        listed = ", ".join(f"{name!r} brings {scorer!r}" for scorer, name in wanted.items())
        raise PlanError(f"The plan names no scorer, and {listed}. Write the one you want into the plan.")
    return find(next(iter(wanted)))()


def _check_slots(method: Method, by_slot: Mapping[str, Method]) -> None:
    for slot in method.needs:
        if slot not in by_slot and slot != "order":
            raise PlanError(f"{method.name!r} needs a method in the slot {slot!r}. {_choices(slot)}")
    for slot in method.conflicts:
        if slot in by_slot:
            both = f"{method.name!r} cannot be combined with {by_slot[slot].name!r}"
            raise PlanError(f"{both}: it excludes the slot {slot!r}. Take one of them out.")
    order = by_slot.get("order")
    if order is not None and method.orders and order.name not in method.orders:
        allowed = " or ".join(method.orders)
        raise PlanError(f"{method.name!r} cannot decide in {order.name} order. Read in {allowed} order.")


def _check_full(written: "list[_Written]", plan: Plan) -> None:
    if any(method.name == DEFAULT and method[1:] != (None, None) for method in written):
        raise PlanError(f"{DEFAULT!r} holds everything, so it takes no budget or parameters. Write {DEFAULT}.")
    dropping = next((method for method in plan.methods if method.slot in _DROPPING), None)
    if dropping is not None:
        raise PlanError(f"{DEFAULT!r} drops nothing, and {dropping.name!r} does. Take one of them out.")


def _choices(slot: str) -> str:
    listed = [row.name for row in table() if row.slot == slot]
    return f"Add one of: {', '.join(listed)}." if listed else "No method is known that fills it."


def _slot_index(method: Method) -> int:
    return SLOTS.index(method.slot)


def _budget(method: Method) -> Budget | None:
    return getattr(method, "budget", None)


class _Written(NamedTuple):
    """A method as it stands in a plan's text."""

    name: str
    budget: str | None
    parameters: str | None


def _methods_in(text: str) -> Iterator[_Written]:
    at, end = 0, "|"
    while end:
        match = _METHOD.match(text, at)
        if match is None:
            rest = text[at:].strip()
            what = f"Cannot read it from {rest!r} on" if rest else "A method is missing at its end"
            raise PlanError(f"The plan {text!r} is not well formed. {what}. {_GRAMMAR}")
        yield _Written(match["name"], match["budget"], match["parameters"])
        at, end = match.end(), match["end"]


def _from_text(name: str, budget: str | None, written: str | None) -> Method:
    kinds = {
        parameter.name: method_values.kind_of(name, parameter)
        for parameter in parameters(method_values.find_method(name))
    }
    values: dict[str, Any] = {}
    if budget is not None:
        if "budget" not in kinds:
            raise PlanError(f"{name!r} takes no budget. {method_values.takes(name)}")
        values["budget"] = method_values.naming(name, Budget.parse, budget)
    at = 0
    while written and written[at:].strip():
        match = _PARAMETER.match(written, at)
        if match is None:
            rest = written[at:].strip()
            raise PlanError(f"{name}: cannot read the parameters from {rest!r} on. {_GRAMMAR}")
        key, at = match["name"], match.end()
        if key in values:
            raise PlanError(f"{name}: {key} is given twice.")
        values[key] = method_values.read(match["value"].strip(), kinds[key]) if key in kinds else match["value"]
    return method_values.build(name, values)
