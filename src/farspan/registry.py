"""What a method is, and how a name finds one.

Methods import torch, and `farspan ls` must not, so a name is matched to a file without importing anything and
a listing is read from the source text. Only the one method that a plan names is imported.
"""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from functools import cache, partial
from importlib import import_module
from importlib.util import resolve_name
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from farspan.errors import PlanError, UnknownName, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Access = Literal["text", "logprobs", "internals"]

PACKAGE = "farspan.methods"
ENTRY_POINTS = "farspan.methods"  # a plug-in's entry: `family.name = "package.module:Class"`


@dataclass(frozen=True)
class Paper:
    """Where a method comes from; `section` is the place in the paper, `id` its row in our list of papers."""

    title: str
    _: KW_ONLY
    arxiv: str | None = None
    section: str | None = None
    id: int | str | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """One long-context method: a frozen, keyword-only dataclass whose fields are its parameters.

    A method lives alone in `farspan/methods/<family>/<name>.py`, which gives it its name and its family.
    `slot` says what it does in a plan, `access` what it must see of a model. `needs` and `conflicts` name
    slots of the same plan, `orders` the orders of reading it works in (none named: all). An allocator or
    folder names in `default_scorer` the scorer that completes it.
    """

    name: ClassVar[str] = ""
    family: ClassVar[str] = ""
    slot: ClassVar[str] = ""
    access: ClassVar[Access] = "internals"
    paper: ClassVar[Paper | None] = None
    summary: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    conflicts: ClassVar[tuple[str, ...]] = ()
    orders: ClassVar[tuple[str, ...]] = ()
    default_scorer: ClassVar[str | None] = None
    artefacts: ClassVar[tuple[str, ...]] = ()
    """Which parameters name saved artefacts (head profiles): plans keep and hash what those say, not where they lie."""
    artefact_module: ClassVar[str] = "farspan.heads"
    """What knows these artefacts: its `pinned(name)` and `digest(name)` say how plans keep and hash them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        package, _, stem = cls.__module__.rpartition(".")
        if "name" not in cls.__dict__:
            cls.name = stem.lower() if _is_method_file(stem) else ""
        if "family" not in cls.__dict__ and package.startswith(PACKAGE + "."):
            cls.family = package.removeprefix(PACKAGE + ".")
        cls.summary = _first_line(cls.__dict__.get("__doc__"))

    def check(self) -> None:
        """Raise PlanError where parameter values are out of range or wrong together; plans call this."""

    def reading(self) -> object:
        """What of it a read goes by: methods that are equal in this read alike. None: it acts when asked alone."""
        return self


class Parameter(NamedTuple):
    """One parameter of a method; `default` is dataclasses.MISSING where a value must be given."""

    name: str
    type: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether a plan must give a value."""
        return self.default is MISSING


class Row(NamedTuple):
    """What a table says about a method; each parameter as source text, such as `window: int = 32`."""

    name: str
    family: str
    slot: str
    summary: str
    parameters: tuple[str, ...]
    paper: Paper | None


class _Place(NamedTuple):
    """Where a method is to be had, without having imported it."""

    name: str
    family: str
    origin: str
    load: Callable[[], type[Method]]
    module: str | None = None  # a built-in's, whose source can be read without importing it


def find(name: str) -> type[Method]:
    """The method of that name, imported now; hyphens and underscores are the same."""
    places = _places()
    place = places.get(_key(name))
    if place is None:
        raise unknown(name, [place.name for place in places.values()])
    method = place.load()
    _check_contract(method, place)
    return method


def unknown(name: str, allowed: Iterable[str]) -> UnknownName:
    """The error for a name that is none of the allowed ones."""
    listed = sorted(allowed)
    hint = did_you_mean(name, listed)
    return UnknownName(f"There is no method {name!r}.{hint} Methods: {', '.join(listed)}.")


def names(family: str | None = None) -> list[str]:
    """The names of all methods, or of one family's, sorted; imports none of them."""
    return sorted(place.name for place in _places().values() if family in (None, place.family))


def table() -> list[Row]:
    """One row per method, by family and name. Built-ins are read, not imported; plug-ins are imported."""
    rows = [_read_row(place) or _row(find(place.name)) for place in _places().values()]
    return sorted(rows, key=lambda row: (row.family, row.name))


@cache
def parameters(method: type[Method]) -> tuple[Parameter, ...]:
    """The parameters of a method in the order they are declared, with their types and defaults."""
    return tuple(
        Parameter(field.name, _resolved_type(method, field.name, field.type), field.default) for field in fields(method)
    )


@contextmanager
def registered(*methods: type[Method]) -> Iterator[None]:
    """Make methods known by name for a while: in a test, or to try one in a notebook."""
    before = _registered.copy()
    _registered.extend(methods)
    try:
        yield
    finally:
        _registered[:] = before


_registered: list[type[Method]] = []


def _places() -> dict[str, _Place]:
    """Every method there is, by name; two of one name are an error, because a plan could mean either."""
    found: dict[str, _Place] = {}
    for place in (*_built_ins(), *_plug_ins(), *_temporary()):
        other = found.setdefault(_key(place.name), place)
        if other is not place:
            raise PlanError(
                f"Two methods are named {place.name!r}: one in {other.origin}, one in {place.origin}. "
                "Rename one, or uninstall the package that brings it."
            )
    return found


def _roots() -> list[Path]:
    # By name, because the foundations import nothing above them; the package itself is only a docstring.
    return [Path(root) for root in import_module(PACKAGE).__path__]


def _built_ins() -> Iterator[_Place]:
    for root in _roots():
        for file in sorted(root.glob("*/*.py")):
            family, stem = file.parent.name, file.stem
            if _is_method_file(stem) and not family.startswith(("_", ".")):
                module = f"{PACKAGE}.{family}.{stem}"
                yield _Place(stem.lower(), family, str(file), partial(_method_in, module), module)


@cache  # reading the metadata of every installed package takes milliseconds, and it does not change under us
def _plug_ins() -> tuple[_Place, ...]:
    from importlib.metadata import entry_points  # four fifths of this module's import time

    return tuple(_plug_in(entry) for entry in entry_points(group=ENTRY_POINTS))


def _plug_in(entry: "EntryPoint") -> _Place:
    origin = f"the package {entry.dist.name}" if entry.dist else f"the entry point {entry.value}"
    family, dot, name = entry.name.partition(".")
    if not (family and dot and name):
        raise PlanError(
            f"The entry point {entry.name!r} of {origin} does not say what it is: "
            f"it must be written family.name, such as retain.{entry.name.strip('.')}."
        )
    return _Place(name, family, origin, entry.load)


def _temporary() -> Iterator[_Place]:
    for method in _registered:
        origin = f"the module {method.__module__}"
        yield _Place(method.name, method.family, origin, lambda method=method: method)


def _method_in(module_name: str) -> type[Method]:
    module = import_module(module_name)
    here = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Method)
        and value.__module__ == module_name and not name.startswith("_")
    ]  # fmt: skip
    if len(here) != 1:
        listed = ", ".join(method.__name__ for method in here) or "none"
        raise TypeError(f"{module_name} must define one public method, and defines {listed}.")
    return here[0]


def _check_contract(method: type[Method], place: _Place) -> None:
    """Raise TypeError, for whoever wrote it, where a class is not what its place and our rules promise."""
    who = f"{getattr(method, '__name__', method)} in {place.origin}"
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise TypeError(f"{who} must be a class derived from farspan.registry.Method.")
    # An undecorated subclass inherits its parent's dataclass, and its own parameters would silently be none.
    # Frozen it is once decorated: Python lets nothing else derive from a frozen dataclass.
    if "__dataclass_params__" not in method.__dict__ or not all(field.kw_only for field in fields(method)):
        raise TypeError(f"{who} must be decorated with @dataclass(frozen=True, kw_only=True).")
    if _key(method.name) != _key(place.name) or method.family != place.family:
        raise TypeError(
            f"{who} must be named {place.name!r} in the family {place.family!r}, "
            f"and is {method.name!r} in {method.family!r}."
        )


def _key(name: str) -> str:
    return name.replace("-", "_")


def _is_method_file(stem: str) -> bool:
    return stem != "base" and not stem.startswith("_")


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0].strip()


def _resolved_type(method: type[Method], name: str, annotation: Any) -> Any:
    """The type behind an annotation that may be text; resolved alone, so no other annotation can fail it."""
    if not isinstance(annotation, str):
        return annotation
    owner = next(base for base in method.__mro__ if name in get_annotations(base))
    try:
        return eval(annotation, dict(vars(sys.modules[owner.__module__])))
    except NameError as error:
        what = f"The parameter {name!r} of {method.__name__}: {error}"
        raise TypeError(f"{what}; import it outside of TYPE_CHECKING.") from None


def _row(method: type[Method]) -> Row:
    texts = []
    for name, kind, default in parameters(method):
        shown = kind.__name__ if isinstance(kind, type) else str(kind)
        texts.append(f"{name}: {shown}" + ("" if default is MISSING else f" = {default!r}"))
    return Row(method.name, method.family, method.slot, method.summary, tuple(texts), method.paper)


def _read_row(place: _Place) -> Row | None:
    """The row of a built-in from its source text, or None where only importing can tell."""
    if place.module is None:
        return None
    tree, _ = _source(place.module)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    candidates = [node.name for node in classes if node.bases and node.decorator_list]
    # Helper classes may stand beside the method, which is then the one called like its file.
    alike = [name for name in candidates if name.lower() == place.name.replace("_", "")]
    if len(alike or candidates) != 1:
        return None
    lineage = _lineage(place.module, (alike or candidates)[0])
    variables: dict[str, ast.expr] = {}
    texts: dict[str, str] = {}
    for node in lineage:
        _read_body(node, variables, texts)
    return Row(
        name=_literal(variables.get("name"), place.name),
        family=place.family,
        slot=_literal(variables.get("slot"), ""),
        summary=_first_line(ast.get_docstring(lineage[-1])),
        parameters=tuple(texts.values()),
        paper=_paper(variables.get("paper")),
    )


def _lineage(module: str, name: str) -> list[ast.ClassDef]:
    """The class of that name and those it derives from under farspan.methods, bases first."""
    if not module.startswith(PACKAGE + "."):
        return []
    tree, package = _source(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            return [*(above for base in bases for above in _lineage(module, base)), node]
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    origin = resolve_name("." * node.level + (node.module or ""), package)
                    return _lineage(origin, alias.name)
    return []


def _source(module: str) -> tuple[ast.Module, str]:
    """-> a module's parsed source, and the package that its relative imports start from."""
    parts = module.removeprefix(PACKAGE + ".").split(".")
    for root in _roots():
        base = root.joinpath(*parts)
        parent = module.rpartition(".")[0]
        for file, package in ((base.with_suffix(".py"), parent), (base / "__init__.py", module)):
            if file.is_file():
                return ast.parse(file.read_text(encoding="utf-8")), package
    raise ModuleNotFoundError(module)


def _read_body(node: ast.ClassDef, variables: dict[str, ast.expr], texts: dict[str, str]) -> None:
    """Add what a class body assigns to class variables, and the fields it declares as text."""
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            variables[item.targets[0].id] = item.value
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            if "ClassVar" not in ast.unparse(item.annotation):
                texts[item.target.id] = ast.unparse(item)
            elif item.value is not None:
                variables[item.target.id] = item.value


def _literal(node: ast.expr | None, default: str) -> str:
    return default if node is None else ast.literal_eval(node)


def _paper(node: ast.expr | None) -> Paper | None:
    if not isinstance(node, ast.Call):
        return None
    arguments = [ast.literal_eval(argument) for argument in node.args]
    return Paper(*arguments, **{word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg})
