"""A student's attention and its cross-entropy to the teacher's map from attention kernels that store
no map: flash attention, or memory-efficient attention where the student has an additive bias, of
whose gradient it stores one for each of a part of the images."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.transfer.map_parts import parts_of, products_of
from families.core.attention import Route

PADDING = 8  # columns that the backward pass adds to each head; kernels want multiples of 8
BIAS_ALIGNMENT = 16  # elements of a row of the bias in memory, as PyTorch aligns it
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32, torch.float64)}
TOKENS = 197  # of a ViT at 224 pixels
BIASED = ["cuda"]  # devices whose kernel gives a bias's gradient


def serves(student: Route, v: Tensor, teacher: Route) -> bool:
    """Whether a kernel takes these inputs: one precision for all, a device that has it, and an
    additive bias of the student only where all images share it."""
    device = v.device.type
    fits = device == "cpu" or (v.shape[-1] % PADDING == 0 and v.shape[-1] + PADDING <= 256)
    alike = teacher.q.dtype == v.dtype and v.dtype in DTYPES.get(device, ())
    bias = student.bias
    shared = bias is None or (device in BIASED and (bias.dim() < 4 or bias.shape[0] == 1))
    return shared and fits and alike and _is_usable(device, bias is not None, v.shape[-1])


def attend_and_compare(student: Route, v: Tensor, teacher: Route) -> tuple[Tensor, Tensor]:
    """The student's attention output [B, heads, tokens, head_dim] and its cross-entropy to the
    teacher's map, a scalar.

    A row's cross-entropy is logsumexp_j(s_ij) - sum_j P_ij s_ij, with the teacher's map P, whose
    rows sum to 1. The student's logits are s = scale q k^T + bias, so the sum has two terms. One is
    scale q_i . (P k)_i: the teacher attends to the student's keys. The other is sum_j P_ij bias_ij;
    all images share the bias, so that its mean over them needs only their mean map.
    """
    q, k, bias = student.q.to(v.dtype), student.k.to(v.dtype), student.bias
    if bias is not None:
        bias = bias.reshape((1,) * (4 - bias.dim()) + bias.shape)
    out, logsumexp = _Attended.apply(q, k, v, bias, student.scale)
    expected = _RowDot.apply(q, teacher.attend(k))
    loss = (logsumexp - student.scale * expected).mean()
    return out, loss if bias is None else loss - (bias * _mean_map(teacher)).sum(-1).mean()


@torch.no_grad()
def _mean_map(teacher: Route) -> Tensor:
    """The images' mean map [heads, tokens, tokens], in float32 at least."""
    heads, tokens = teacher.q.shape[1:3]
    total = teacher.q.new_zeros((heads, tokens, tokens), dtype=torch.promote_types(teacher.q.dtype, torch.float32))
    with products_of((teacher.q.dtype, teacher.k.dtype), teacher.q.device):
        for images, queries in parts_of(teacher.q):
            total[:, queries] += teacher.rows(images, queries).sum(0)
    return total / len(teacher)


class _Attended(torch.autograd.Function):
    """softmax(scale q k^T + bias) v and the logsumexp of its logits, with gradients of both.

    A kernel's backward pass gives ds = P (g v^T - level), where level = rowsum(g * out); the
    gradient c of the logsumexp adds c P. One more column in g and out makes the level c smaller: 1
    in g and -c in out. Two columns hold c, so that a half-precision c keeps twice the digits.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        out, logsumexp, *rest = _forward(q, k, v, _aligned(bias, q), scale)
        tensors = [each for each in rest if each is None or isinstance(each, Tensor)]
        ctx.scale, ctx.lengths = scale, [each for each in rest if each is not None and not isinstance(each, Tensor)]
        ctx.save_for_backward(q, k, v, bias, out, logsumexp, *tensors)
        return out, logsumexp[..., : q.shape[-2]]  # of which a kernel may give more

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, logsumexp, *rest = ctx.saved_tensors
        width, dtype, mask = q.shape[-1], q.dtype, _aligned(bias, q)
        grad, each = grads[0].to(dtype), grads[1]
        coarse = each.to(dtype)
        grad, q, k, v, out = (_padded(tensor) for tensor in (grad, q, k, v, out))
        grad[..., width : width + 2] = 1
        out[..., width] = -coarse
        out[..., width + 1] = -(each - coarse)
        found, dbias = _backward((grad, q, k, v, out, logsumexp), mask, rest, ctx.lengths, ctx.scale)
        if dbias is not None:
            dbias = dbias.sum_to_size(bias.shape).to(bias.dtype)
        return *(tensor[..., :width] for tensor in found), dbias, None


class _RowDot(torch.autograd.Function):
    """The dot products of rows [..., d], in float32 at least, without a copy of that precision for
    the backward pass."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward(one, other)
        dtype = torch.promote_types(one.dtype, torch.float32)
        return (one.to(dtype) * other.to(dtype)).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        one, other = ctx.saved_tensors
        grad = grads[0].unsqueeze(-1)
        return (grad * other).to(one.dtype), (grad * one).to(other.dtype)


def _padded(tensor: Tensor) -> Tensor:
    """[B, heads, tokens, head_dim + PADDING], with a token's heads side by side in memory: the
    memory-efficient kernel reads an output as if it lay so."""
    return F.pad(tensor.transpose(1, 2), (0, PADDING)).transpose(1, 2)


def _aligned(bias: Tensor | None, q: Tensor) -> Tensor | None:
    """The bias [1, 1 or heads, tokens, tokens] as kernels take it: for each image, in q's precision,
    with its rows apart by a multiple of BIAS_ALIGNMENT."""
    if bias is None:
        return None
    tokens = q.shape[-2]
    return F.pad(bias.to(q.dtype), (0, -tokens % BIAS_ALIGNMENT))[..., :tokens].expand(*q.shape[:2], tokens, tokens)


def _forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> list[Any]:
    """Output, logsumexp [B, heads, tokens] and what else the kernel's backward pass takes."""
    if bias is not None:
        return list(torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, scale=scale))
    if q.device.type == "cpu":
        return list(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale))
    return list(torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale))[:8]


def _backward(
    given: tuple[Tensor, ...], bias: Tensor | None, rest: list[Tensor | None], lengths: list[int], scale: float
) -> tuple[Sequence[Tensor], Tensor | None]:
    """The gradients of q, k and v, and of the bias [1, heads, tokens, tokens] in float32 at least,
    given (gradient of the output, q, k, v, output, logsumexp)."""
    if bias is not None:
        found: list[Sequence[Tensor]] = []
        total = torch.zeros_like(bias[:1], dtype=torch.promote_types(bias.dtype, torch.float32))
        for images in (images for images, queries in parts_of(given[1]) if not queries.start):
            grad, q, k, v, out, logsumexp = (tensor[images] for tensor in given)
            *three, dbias = _biased_backward((grad, q, k, v, bias[images], out, logsumexp, *rest), scale)
            total += dbias.sum(0, keepdim=True, dtype=total.dtype)
            found.append(three)
        return [torch.cat(each) for each in zip(*found, strict=True)], total
    if given[0].device.type == "cpu":
        operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return operator(*given, 0.0, False, scale=scale), None
    *sequences, seed, offset = rest
    operator = torch.ops.aten._scaled_dot_product_flash_attention_backward
    return operator(*given, *sequences, *lengths, 0.0, False, seed, offset, scale=scale), None


def _biased_backward(given: tuple[Tensor | None, ...], scale: float) -> Sequence[Tensor]:
    """The gradients of q, k, v and of each image's bias."""
    operator = torch.ops.aten._scaled_dot_product_efficient_attention_backward
    return tuple(operator(*given, 0.0, [True] * 4, scale=scale))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_usable(device: str, biased: bool, width: int) -> bool:
    return _tried(device, biased, width)


@functools.cache
def _tried(device: str, biased: bool, width: int) -> bool:
    """Whether this torch has both operators, with these arguments, and they give the attention, the
    logsumexp and the gradients of both. A device has several kernels, so this width of heads and
    TOKENS are tried."""
    dtype = DTYPES[device][-1]  # of several kernels of a device, the one that can be checked best
    try:
        with ExitStack() as within:  # whatever surrounds the first use
            for each in (torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False), _unhooked()):
                within.enter_context(each)
            given = _waves((3, 2, 2, TOKENS, width), device).to(dtype)  # not drawn: that would change a training
            bias = _waves((1, 2, TOKENS, TOKENS), device).to(dtype) if biased else None
            found = []
            ways: list[tuple[Callable[..., tuple[Tensor, Tensor]], torch.dtype]]
            ways = [(_Attended.apply, dtype), (_written_out, torch.float64)]
            for attended, kind in ways:
                leaves = [tensor.to(kind).requires_grad_() for tensor in given]
                mask = None if bias is None else bias.to(kind).requires_grad_()
                out, logsumexp = attended(*leaves, mask, 0.3)
                total = out.double().square().sum() + logsumexp.double().square().sum()
                leaves += [mask] if mask is not None else []
                found.append((out, logsumexp, *torch.autograd.grad(total, leaves)))
            close = 3e-2 if dtype.itemsize < 4 else 1e-9
            right = all((one - other).norm() <= close * other.norm() for one, other in zip(*found, strict=True))
    except Exception:  # private operators: another torch may lack them, take other arguments or give something else
        right = False
    if not right:
        which = "attention with a bias" if biased else "flash attention"
        print(f"bench: this torch's {which} on {device} is not as expected: Distillation is slower", file=sys.stderr)
    return right


def _waves(shape: tuple[int, ...], device: str) -> Tensor:
    """Numbers between -1 and 1 whose neighbours are far apart, in float64."""
    count = math.prod(shape)
    return torch.linspace(0, 1.7 * count, count, device=device, dtype=torch.float64).sin().view(shape)


def _unhooked() -> AbstractContextManager[None]:
    """No hooks on saved tensors within, such as gradient checkpointing has."""
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def _written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    logits = scale * q @ k.mT + (0.0 if bias is None else bias)
    return logits.softmax(-1) @ v, logits.logsumexp(-1)
