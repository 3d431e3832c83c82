"""Where models come from: a folder, a hub id, the embedded one, or a transformers model that is already there."""

from __future__ import annotations

import os
from typing import Any

import torch

from farspan.errors import OptionError
from farspan.heads import HeadProfile
from farspan.model import Model
from farspan.runtime import hf_load, hf_weights
from farspan.runtime.hf_inspect import prepare_model

EMBEDDED = "reference"  # the name under which the embedded model is loaded and written into files


def load(
    path: str | os.PathLike[str] | Any | None = None,
    *,
    tokenizer: Any = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
    weights: str | None = None,
) -> Model:
    """Load a causal language model: a folder, a hub id, nothing (the embedded reference model), or a transformers
    model that is already there, with its `tokenizer`.

    `dtype` is the checkpoint's own unless given ("float32", "bfloat16", "float16"). `weights` turns the
    layers' linear weights, in place, into another form for faster answers: "int8" (half the bytes, slightly other
    numbers) or "packed" (the same numbers in oneDNN's layout, on CPU in 16 bits); contexts read with one form can be
    asked with another. Pickled weights and remote code are refused. Raises ModelNotFound, UnsafeWeights,
    UnsupportedModel or OptionError.
    """
    hf_weights.check_form(weights)
    if path is not None and not isinstance(path, (str, os.PathLike)):
        if tokenizer is None:
            raise OptionError("give the model's tokenizer too: farspan.load(model, tokenizer=tokenizer)")
        return Model(
            path, tokenizer, path=getattr(path.config, "_name_or_path", "") or type(path).__name__, weights=weights
        )
    name = EMBEDDED if path is None else os.fspath(path)
    folder = name
    if name == EMBEDDED:
        from farspan import reference

        folder = str(reference.path())
    hf_model, its_tokenizer = hf_load.load_pretrained(folder, dtype=dtype, device=device, device_map=device_map)
    return Model(hf_model, tokenizer or its_tokenizer, path=name, weights=weights)


def profile(model: Model | str | os.PathLike[str] | None = None, **options: Any) -> HeadProfile:
    """A head profile of a model, or of one to be loaded; options as for `Model.profile`."""
    return (model if isinstance(model, Model) else load(model)).profile(**options)


def prepare(hf_model: Any) -> Any:
    """Make a transformers causal LM read farspan contexts under its own `generate`; returns the same model.

    It keeps working as before without one. Raises UnsupportedModel.
    """
    prepare_model(hf_model)
    return hf_model
