"""What the commands do alike: load a model quietly, and decide where a file may be written."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from farspan.errors import StorageError, UsageError, did_you_mean

if TYPE_CHECKING:
    from farspan import Model
    from farspan.artefacts import Kind

SUFFIX = ".ctx"
STDIN = "<stdin>"  # what a lone - on the command line becomes


def load_model(
    name: str | None, *, dtype: str | None = None, device: str | None = None, weights: str | None = None
) -> Model:
    """`farspan.load` without the libraries' own progress bars and advice on stderr.

    A folder's name is made absolute: it goes into context files, which are opened from anywhere.
    """
    settle_libraries()
    import farspan
    from farspan.loading import EMBEDDED

    if name is not None and name != EMBEDDED and os.path.isdir(os.path.expanduser(name)):
        name = os.path.abspath(os.path.expanduser(name))
    return farspan.load(name, dtype=dtype, device=device, weights=weights)


def settle_libraries() -> None:
    """Only errors: what transformers advises is for those who wrote the model's code or ours.

    And threads that wait without spinning: on a busy two-core machine answers came at 1 token/s with it, 149 without.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", module=r"(transformers|torch|huggingface_hub)(\.|$)")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def checked_output(path: Path, sources: Iterable[str] = ()) -> Path:
    """The path, if a context may be written there; said before minutes of reading, not after.

    Raises UsageError where it is a document that is read or any other file that is no context, StorageError where
    its folder does not exist or may not be written to.
    """
    if str(path) == STDIN:
        raise UsageError("a context is read back in pieces, so it cannot go to standard output; name a file with -o")
    _checked_place(path)
    if path.exists() and not _is_context(path):
        what = "one of the documents" if any(_same(path, source) for source in sources) else "no context file"
        raise UsageError(f"{path} exists and is {what}; it would be lost. Name another file with -o")
    return path


def _checked_place(path: Path, name: str = "book" + SUFFIX) -> None:
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it, such as {path / name}")
    if not folder.is_dir():
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise StorageError(
            f"there is no folder {folder} to write {path.name} into.{did_you_mean(folder.name, siblings)}"
        )
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{folder} may not be written to; name another place with -o")


def checked_artefact(path: Path, kind: Kind) -> Path:
    """The path, if an artefact of that kind may be written there; said before minutes of making it. Raises as
    `checked_output`.
    """
    if str(path) == STDIN:
        raise UsageError(f"a {kind.name} is named by plans, so it cannot go to standard output; name a file with -o")
    _checked_place(path, "model" + kind.suffix)
    if path.exists() and not kind.is_one(path):
        raise UsageError(f"{path} exists and is no {kind.name}; it would be lost. Name another file with -o")
    return path


def _same(path: Path, source: str) -> bool:
    try:
        return os.path.samefile(path, source)
    except OSError:
        return False


def _is_context(path: Path) -> bool:
    """True for what farspan wrote, and for an empty file, which holds nothing to lose."""
    from farspan.cache.container import MARK

    try:
        with path.open("rb") as file:
            head = file.read(8 + len(MARK))
    except OSError as error:
        raise StorageError(f"{path} exists and cannot be read, so it is not replaced: {error.strerror}") from error
    return path.is_file() and (not head or head[8:] == MARK)
