"""`farspan doctor`: what this machine can do, and what keeps farspan from working on it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from farspan.cli.output import bytes_text, emit, rows, say
from farspan.errors import FarspanError

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "amx_int8")  # those that CPU kernels use
COMPILERS = ("c++", "g++", "clang++")
LEAST_DISK = 100 * 1024**2  # a context of a long document in a small model


def doctor(*, json: bool = False) -> int:
    """Show what this machine has and what it lacks.

    Versions, hardware, kernels and the embedded model; exits with 1 where something is missing.

    Parameters
    ----------
    json
        Print it as one JSON object.
    """
    facts = examine()
    if json:
        emit(facts)
    else:
        say(summary(facts))
    return 1 if facts["problems"] else 0


def examine() -> dict[str, Any]:
    """Everything that is looked at; `problems` says what keeps farspan from working, and what to do."""
    problems: list[str] = []

    def part(examined: Callable[[list[str]], Any]) -> Any:
        try:
            return examined(problems)
        except Exception as error:  # a broken installation breaks in any way it likes, and that is the finding
            problems.append(f"{type(error).__name__}: {error}")
            return None

    from farspan import __version__

    return {
        "farspan": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": part(_packages),
        "cpu": part(_cpu),
        "memory_bytes": part(_memory),
        "devices": part(_devices),
        "compiler": part(_compiler),
        "embedded_model": part(_embedded),
        "disk": part(_disk),
        "problems": problems,
    }


def _packages(problems: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            problems.append(f"{name} is not installed: pip install {name}")
    for name, wanted in _requirements().items():
        version = found.get(name)
        if version is not None and not wanted(version):
            problems.append(f"{name} {version} is not a version that farspan works with: pip install --upgrade farspan")
    return found


def _requirements() -> dict[str, Callable[[str], bool]]:
    """Per package, whether a version is among those that farspan asks for; empty where farspan is not installed."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in metadata.requires("farspan") or []]
    except (ImportError, metadata.PackageNotFoundError):
        return {}
    return {each.name: each.specifier.contains for each in wanted if each.marker is None}


def _cpu(problems: list[str]) -> dict[str, Any]:
    facts: dict[str, str] = {}
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            pairs = (line.partition(":") for line in lines)
            for name, _, value in pairs:
                facts.setdefault(name.strip(), value.strip())
    flags = facts.get("flags", facts.get("Features", "")).split()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": usable,
        "instructions": {name: name in flags for name in INSTRUCTIONS},
    }


def _memory(problems: list[str]) -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _devices(problems: list[str]) -> list[dict[str, Any]]:
    """What torch can compute on, and which attention route serves each."""
    import torch

    from farspan.attention import backend

    devices = [("cpu", f"{torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        devices += [(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(("mps", "Apple GPU"))
    found = []
    for device, name in devices:
        route = backend(device.partition(":")[0])
        facts = {"attention": route.name, "why": route.why, "rejected": route.rejected}
        found.append({"device": device, "name": name, **facts})
    return found


def _compiler(problems: list[str]) -> str | None:
    """Where a C++ compiler is: the C++ kernels are built with it when farspan is installed."""
    named = [os.environ["CXX"]] if os.environ.get("CXX") else []
    return next(filter(None, map(shutil.which, [*named, *COMPILERS])), None)


def _embedded(problems: list[str]) -> dict[str, Any]:
    from farspan import reference

    facts: dict[str, Any] = {
        "path": str(reference.path()),
        "trained_length": reference.TRAINED_LENGTH,
        "verified": True,
    }
    try:
        reference.verify()
    except FarspanError as error:
        problems.append(str(error))
        facts["verified"] = False
    return facts


def _disk(problems: list[str]) -> dict[str, Any]:
    folder = os.getcwd()
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    if not writable:
        problems.append(f"{folder} may not be written to, and contexts go there unless -o names another place")
    if free < LEAST_DISK:
        problems.append(f"only {bytes_text(free)} are free in {folder}")
    return {"path": folder, "free_bytes": free, "writable": writable}


def summary(facts: dict[str, Any]) -> str:
    """The same for people."""
    cpu, disk, embedded = facts["cpu"], facts["disk"], facts["embedded_model"]
    table = [("farspan", f"{facts['farspan']}, Python {facts['python']} at {facts['executable']}")]
    if facts["packages"]:
        listed = ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items())
        table.append(("packages", listed))
    if cpu:
        known = cpu["instructions"]
        with_, without = ([n for n in known if known[n] is there] for there in (True, False))
        table.append(("cpu", f"{cpu['model']}, {cpu['cores']} cores"))
        missing = f"; lacks {', '.join(without)}" if without else ""
        table.append(("", f"has {', '.join(with_) or 'none of these'}{missing}"))
    if facts["memory_bytes"]:
        table.append(("memory", bytes_text(facts["memory_bytes"])))
    for device in facts["devices"] or ():
        route = f"{device['attention']} ({device['why']})"
        table.append((f"on {device['device']}", f"{device['name']}; attention: {route}"))
        table += [("", f"no {other}: {reason}") for other, reason in device["rejected"].items()]
    table.append(("compiler", facts["compiler"] or "none found, and none is needed"))
    if embedded:
        state = "intact" if embedded["verified"] else "damaged"
        table.append(("model", f"embedded, {state}, trained on {embedded['trained_length']:,} tokens"))
    if disk:
        table.append(("disk", f"{bytes_text(disk['free_bytes'])} free in {disk['path']}"))
    ends = [f"problem: {problem}" for problem in facts["problems"]] or ["ready"]
    return "\n".join([rows(table), "", *ends])
