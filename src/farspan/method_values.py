"""A method from the values that somebody wrote, and a method's values as they are written.

What a plan's text, its JSON and its TOML have in common: names and values are checked, converted to exactly the type
that a parameter has, and shown again in the same form.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from farspan.budget import Budget
from farspan.errors import PlanError, UnknownName, UsageError, did_you_mean
from farspan.registry import Method, Parameter, find, names, parameters, unknown

DEFAULT = "full"  # the empty plan's name: everything is held, nothing is dropped
BUDGET_FORMS = "write {0}:2048, {0}:10% or {0}:1.5GiB"

_BARE = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+(?:_\d+)*", re.ASCII)


def values(method: Method) -> dict[str, Any]:
    """Every parameter as JSON holds it."""
    own = {parameter.name: getattr(method, parameter.name) for parameter in parameters(type(method))}
    return {name: str(value) if isinstance(value, Budget) else value for name, value in own.items()}


def naming(name: str, action: Callable[..., Any], *arguments: Any) -> Any:
    """What the action returns, or its error with the method's name before the message."""
    try:
        return action(*arguments)
    except UsageError as error:
        raise type(error)(f"{name}: {error}") from None


def build(name: str, given: Mapping[str, Any]) -> Method:
    """The method of that name with these values; raises PlanError for one that is unknown, missing or wrong."""
    method = find_method(name)
    known = parameters(method)
    allowed = [parameter.name for parameter in known]
    for key in given:
        if key not in allowed:
            raise PlanError(f"{name!r} has no parameter {key!r}.{did_you_mean(key, allowed)} {takes(name)}")
    for parameter in known:
        if parameter.required and parameter.name not in given:
            if parameter.name == "budget":
                raise PlanError(f"{name!r} needs a budget: {BUDGET_FORMS.format(name)}.")
            example = f"{name}({parameter.name}=...)"
            raise PlanError(f"{name!r} needs {parameter.name}: write {example}. {takes(name)}")
    return typed(method(**given))


def find_method(name: str) -> type[Method]:
    """The class of that name; the error for another counts `full` among the names."""
    try:
        return find(name)
    except UnknownName:
        raise unknown(name, [DEFAULT, *names()]) from None


def takes(name: str) -> str:
    """The sentence that lists a method's parameters."""
    listed = [
        parameter.name if parameter.required else f"{parameter.name}={_shown(parameter.default)}"
        for parameter in parameters(find(name))
    ]
    return f"It takes {', '.join(listed)}." if listed else "It takes no parameters."


class Kind(NamedTuple):
    """What a parameter may hold."""

    type: type
    choices: tuple[Any, ...]  # a Literal's, else none
    optional: bool


def kind_of(name: str, parameter: Parameter) -> Kind:
    """What a parameter may hold; TypeError where its annotation is none that plans can write."""
    annotated = parameter.type
    union = get_args(annotated) if get_origin(annotated) in (Union, UnionType) else (annotated,)
    members = [member for member in union if member is not type(None)]
    choices = get_args(members[0]) if get_origin(members[0]) is Literal else ()
    kind = type(choices[0]) if choices else members[0]
    if len(members) != 1 or kind not in (bool, int, float, str, Budget):
        raise TypeError(
            f"{name}: the parameter {parameter.name!r} is annotated {annotated}; "
            "it must be an int, float, bool, str, Literal or Budget, or one of these or None."
        )
    return Kind(kind, choices, len(members) < len(union))


def read(written: str, kind: Kind) -> Any:
    """The value that a parameter's text stands for, or the text itself where it does not fit."""
    if written[:1] in ("'", '"'):
        try:
            return ast.literal_eval(written)
        except (ValueError, SyntaxError):
            raise PlanError(f"{written} is not a well-formed string.") from None
    if kind.optional and written.lower() == "none":
        return None
    if kind.type is bool:
        return {"true": True, "false": False}.get(written.lower(), written)
    try:
        if kind.type is float or (kind.type is int and _INTEGER.fullmatch(written)):
            return kind.type(written)
    except ValueError:  # not a number, or one with thousands of digits
        pass
    return written


def typed(method: Method) -> Method:
    """The method with each value of exactly its parameter's type, so that equal plans serialise alike."""
    changed: dict[str, Any] = {}
    for parameter in parameters(type(method)):
        value = getattr(method, parameter.name)
        if (converted := _converted(method.name, parameter, value)) is not value:
            changed[parameter.name] = converted
    for name in method.artefacts:
        value = changed.get(name, getattr(method, name))
        pinned = import_module(method.artefact_module).pinned
        if (kept := naming(method.name, pinned, value)) != value:
            changed[name] = kept
    return replace(method, **changed) if changed else method


def _converted(name: str, parameter: Parameter, value: Any) -> Any:
    kind = kind_of(name, parameter)
    if value is None and (kind.optional or parameter.default is None):
        return None
    if kind.choices:
        if value in kind.choices and type(value) is kind.type:
            return value
        allowed = ", ".join(map(_shown, kind.choices))
        raise PlanError(f"{name}: {parameter.name} is one of {allowed}, not {value!r}.")
    if kind.type is Budget:
        return naming(f"{name}: {parameter.name}", Budget.parse, value)
    if kind.type is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(name, parameter.name, value)
    if type(value) is not kind.type:
        article = "an" if kind.type is int else "a"
        raise PlanError(f"{name}: {parameter.name} takes {article} {kind.type.__name__}, not {value!r}.")
    return value


def _finite(name: str, parameter: str, value: float) -> float:
    try:
        number = float(value) + 0.0  # the sum turns -0.0 into 0.0, which equals it and prints otherwise
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PlanError(f"{name}: {parameter} takes a finite number, not {value!r}.")
    return number


def _shown(value: Any) -> str:
    """A value as it stands in a plan's text."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (not _BARE.fullmatch(value) or value.lower() == "none"):
        return repr(value)
    return str(value)


def text(method: Method) -> str:
    """The method as it stands in a plan: name, budget, and what differs from the defaults."""
    written, listed = method.name, []
    for parameter in parameters(type(method)):
        value = getattr(method, parameter.name)
        if parameter.name == "budget" and isinstance(value, Budget) and value != parameter.default:
            written += f":{value}"
        elif value != parameter.default:
            listed.append(f"{parameter.name}={_shown(value)}")
    return f"{written}({', '.join(listed)})" if listed else written
