"""Saved artefacts as files that plans name: JSON under one checksum, known by their content wherever they lie."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farspan.errors import ProfileError, StorageError, did_you_mean

DIGITS = 16  # hexadecimal digits of its checksum by which a plan knows an artefact


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of artefact: the mark in its files, what people call it, its suffix, and how one is made."""

    mark: str
    name: str
    suffix: str
    version: int
    how: str

    def write(self, content: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
        """Write a file, whole or not at all; raises StorageError."""
        target = Path(path)
        text = json.dumps(
            {"kind": self.mark, "format": self.version, "checksum": checksum(content), **content}, indent=1
        )
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            beside.write_text(text + "\n", encoding="utf-8")
            os.replace(beside, target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise StorageError(f"{target} could not be written: {error.strerror}") from error
        return target

    def read(self, path: Path) -> dict[str, Any]:
        """What a file holds; raises ProfileError: missing, damaged, newer than this farspan, or of no such kind."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            near = [str(p) for p in path.parent.glob("*" + self.suffix)] if path.parent.is_dir() else []
            raise ProfileError(f"there is no {self.name} {path}.{did_you_mean(str(path), near)} {self.how}") from None
        except OSError as error:
            raise ProfileError(f"the {self.name} {path} cannot be read: {error.strerror}") from error
        except ValueError:
            raise ProfileError(f"{path} is no {self.name}, or a damaged one. {self.how}") from None
        if not isinstance(data, dict) or data.get("kind") != self.mark:
            raise ProfileError(f"{path} is no {self.name}. {self.how}")
        if data.get("format") != self.version:
            raise ProfileError(
                f"{path} has format {data.get('format')!r}, and this farspan reads {self.version}: update farspan"
            )
        content = {name: value for name, value in data.items() if name not in ("kind", "format", "checksum")}
        if checksum(content) != data.get("checksum"):
            raise ProfileError(f"{path} is damaged: its checksum is not that of its content. {self.how}")
        return content

    def not_the_one(self, path: str, digest: str, pin: str) -> ProfileError:
        """The error for a file whose content changed since a plan named it."""
        return ProfileError(
            f"{path} is not the {self.name} that this plan names: it is #{digest} and was #{pin}. "
            "Put that file back, or name the new one in a plan of its own"
        )

    def is_one(self, path: Path) -> bool:
        """Whether a file is of this kind, damaged or not, or holds nothing."""
        with path.open("rb") as file:
            head = file.read(200)
        return not head or self.mark.encode() in head


def checksum(content: Mapping[str, Any]) -> str:
    """Thirty-two hexadecimal digits of what it says."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()


def is_pinned(name: str) -> bool:
    """Whether a name says which content it means: `file#digits`."""
    path, hash_, digits = name.rpartition("#")
    return bool(path and hash_) and len(digits) == DIGITS and not digits.strip("0123456789abcdef")


def unpinned(name: str) -> tuple[str, str]:
    """-> the file that a name means, and the digits of its content, or none."""
    path, _, pin = name.rpartition("#") if is_pinned(name) else (name, "", "")
    return path, pin
