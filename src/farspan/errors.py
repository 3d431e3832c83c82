"""Every error farspan raises on purpose; anything else that escapes is a bug.

A message says what was wrong, the value given, what is allowed and what to type. The command line prints it
and exits with the class's `exit_code`: 2 where the request has to change, 1 where something else failed.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FarspanError(Exception):
    """Something went wrong that the message explains."""

    exit_code = 1


class UsageError(FarspanError, ValueError):
    """The request itself cannot be carried out; change what was asked."""

    exit_code = 2


class BudgetError(UsageError):
    """A budget is malformed, out of range, or too small to hold anything."""


class PlanError(UsageError):
    """A plan is malformed, incomplete, or contradicts itself."""


class UnknownName(PlanError):
    """No method has the name that was given."""


class PlanDoesNotApply(PlanError):
    """The plan is sound, but this model has nothing for it to act on, or lacks what it needs."""


class ProfileError(PlanError):
    """An artefact that a plan names (head profile, searched factors) is missing, damaged, or not the one meant."""


class DocumentError(UsageError):
    """A document is missing, empty, binary, or in an unknown encoding."""


class OptionError(UsageError):
    """An option or keyword is unknown, or not supported here."""


class ModelError(FarspanError):
    """A model cannot be used."""


class ModelNotFound(ModelError):
    """There is no model at the path, and none by that name can be reached."""


class UnsupportedModel(ModelError):
    """The model's architecture holds state in a way that farspan cannot keep correctly."""


class UnsafeWeights(ModelError):
    """The model's files could run code when they are loaded."""


class ModelNotPrepared(ModelError):
    """A context met a plain transformers model that `farspan.prepare` has not seen."""


class EndpointError(ModelError):
    """A server does not answer, or not as the API says."""


class ReferenceModelError(ModelError):
    """The embedded reference model is missing or damaged."""


class ContextError(FarspanError):
    """A context cannot be used."""


class ContextFileError(ContextError):
    """A file cannot be opened as a context."""


class DamagedFile(ContextFileError):
    """A context file is truncated, or its bytes are not those that were saved."""


class NewerFile(ContextFileError):
    """A context file was written by a newer farspan than this one."""


class ForeignContext(ContextError):
    """A context was made with another model than the one it is used with."""


class CapacityError(FarspanError):
    """A text needs more positions than were decided for this context."""


class StorageError(FarspanError):
    """A file could not be written: the disk is full, or the place is not writable."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """The sentence that suggests the nearest allowed name, with a leading space, or nothing if none is near.

    Case is ignored: papers write SnapKV where a plan says snapkv.
    """
    by_lower = {candidate.lower(): candidate for candidate in allowed}
    near = get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
