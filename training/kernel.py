"""Causal attention for training as a kernel for machines with AMX, built at first use where there is a C++ compiler.

`python -m training.kernel` prints its seconds beside torch's.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).resolve().parent / "native" / "causal.cpp"
SHARED = Path(__file__).resolve().parent.parent / "native" / "squares.inl"
BUILT = Path(__file__).resolve().parent / "out" / "native"
FLAGS = (
    "-std=c++17 -O3 -fno-trapping-math -w -shared -fPIC -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq "
    "-mavx512bf16 -mamx-tile -mamx-bf16"
).split()
HEAD_DIM, BLOCK = 32, 64
"""Channels of a head, and what the number of tokens must be a multiple of."""


class _View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "token", "head"))]


_TENSORS = ("q", "k", "v", "out", "d_out", "d_q", "d_k", "d_v")


class _Call(ctypes.Structure):
    _fields_ = [
        *((name, _View) for name in _TENSORS),
        ("sums", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "tokens", "heads", "kv_heads")),
        ("scale", ctypes.c_float),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernel, or None where the processor or the compiler for it is missing."""
    flags = Path("/proc/cpuinfo")
    if not flags.is_file() or not {"amx_bf16", "avx512_bf16"} <= set(flags.read_text().split()):
        return None
    name = hashlib.sha256(SOURCE.read_bytes() + SHARED.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    built = BUILT / f"causal-{name}.so"
    if not built.is_file() and not _build(built):
        return None
    loaded = ctypes.CDLL(str(built))
    return loaded if loaded.causal_begin() == 0 else None


def _build(target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        compiler = os.environ.get("CXX") or (sysconfig.get_config_var("CXX") or "c++").split()[0]
        try:
            done = subprocess.run(
                [compiler, *FLAGS, "-o", fresh, SOURCE, "-lpthread"], capture_output=True, check=False
            )
        except OSError:
            return False
        if done.returncode == 0:
            os.replace(fresh, target)
        return done.returncode == 0


def fits(device: torch.device, head_dim: int) -> bool:
    """Whether `causal_attention` takes such heads here, as long as tokens are a multiple of `BLOCK`."""
    return device.type == "cpu" and head_dim == HEAD_DIM and library() is not None


def _run(name: str, sums: Tensor, **tensors: Tensor) -> None:
    query, keys = tensors["q"], tensors["k"]
    batch, tokens, heads, width = query.shape
    if width != HEAD_DIM or tokens % BLOCK or any(each.dtype != torch.bfloat16 for each in tensors.values()):
        raise ValueError(f"heads of {HEAD_DIM} channels in bfloat16, tokens a multiple of {BLOCK}; not {query.shape}")
    call = _Call(
        sums=sums.data_ptr(), batch=batch, tokens=tokens, heads=heads, kv_heads=keys.shape[2], scale=width**-0.5
    )
    for each, tensor in tensors.items():
        strides = (tensor.stride(0), tensor.stride(1), tensor.stride(2))
        setattr(call, each, _View(tensor.data_ptr(), *strides))
    loaded = library()
    assert loaded is not None
    getattr(loaded, name)(ctypes.byref(call), torch.get_num_threads())


@torch.library.custom_op("training::causal", mutates_args=())
def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """bfloat16 queries `[B, T, H, 32]`, keys and values `[B, T, Hk, 32]` -> out like the queries, and the binary
    logarithms of the sums of weights `[B, H, T]`.
    """
    q, k, v = (_rows(each) for each in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype)
    sums = torch.empty(q.shape[0], q.shape[2], q.shape[1])
    _run("causal_forward", sums, q=q, k=k, v=v, out=out)
    return out, sums


@causal_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(q.shape, dtype=q.dtype), torch.empty(q.shape[0], q.shape[2], q.shape[1])


@torch.library.custom_op("training::causal_gradients", mutates_args=())
def causal_gradients(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, d_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    q, k, v, out, d_out = (_rows(each) for each in (q, k, v, out, d_out))
    d_q, d_k, d_v = (torch.empty(each.shape, dtype=each.dtype) for each in (q, k, v))
    _run("causal_backward", sums, q=q, k=k, v=v, out=out, d_out=d_out, d_q=d_q, d_k=d_k, d_v=d_v)
    return d_q, d_k, d_v


@causal_gradients.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty(q.shape, dtype=q.dtype), torch.empty(k.shape, dtype=k.dtype), torch.empty(v.shape, dtype=v.dtype)


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _save(ctx: object, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)  # type: ignore[attr-defined]


def _differentiate(ctx: object, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return causal_gradients(*ctx.saved_tensors, grad)  # type: ignore[attr-defined]


causal_attention.register_autograd(_differentiate, setup_context=_save)


def main() -> None:
    """Seconds of 8,192 tokens, forward and backward, this kernel beside torch's."""
    from torch.nn.functional import scaled_dot_product_attention as attend

    for tokens in (256, 512, 1024, 2048, 4096, 8192):
        sizes = [(8192 // tokens, tokens, heads, HEAD_DIM) for heads in (8, 4, 4, 8)]
        q, k, v, grad = (torch.randn(size).bfloat16().requires_grad_() for size in sizes)
        line = f"{tokens:5d} tokens"
        for name in ("torch", "ours"):
            spent = []
            for _ in range(4):
                started = time.perf_counter()
                if name == "ours":
                    out = causal_attention(q, k, v)[0]
                else:
                    turned = (each.transpose(1, 2) for each in (q, k, v))
                    out = attend(*turned, is_causal=True, enable_gqa=True).transpose(1, 2)
                middle = time.perf_counter()
                out.backward(grad.detach())
                spent.append((middle - started, time.perf_counter() - middle))
            forward, backward = (min(each) for each in zip(*spent, strict=True))
            line += f"  {name} {1e3 * forward:6.1f} + {1e3 * backward:6.1f} ms"
        print(line, flush=True)


if __name__ == "__main__":
    main()
