"""A student's attention and its cross-entropy to the teacher's map from flash attention kernels: no
map, nor a part of one, is stored in either pass."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from families.core.attention import Route

PADDING = 8  # columns that the backward pass adds to each head; kernels want multiples of 8
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32, torch.float64)}


def serves(student: Route, v: Tensor, teacher: Route) -> bool:
    """Whether a kernel takes these inputs: no additive bias of the student, one precision for all,
    and a device that has it."""
    device = v.device.type
    fits = device == "cpu" or (v.shape[-1] % PADDING == 0 and v.shape[-1] + PADDING <= 256)
    alike = teacher.q.dtype == v.dtype and v.dtype in DTYPES.get(device, ())
    return student.bias is None and fits and alike and _is_usable(device)


def attend_and_compare(student: Route, v: Tensor, teacher: Route) -> tuple[Tensor, Tensor]:
    """The student's attention output [B, heads, tokens, head_dim] and its cross-entropy to the
    teacher's map, a scalar.

    A row's cross-entropy is logsumexp_j(s_ij) - sum_j P_ij s_ij, with the teacher's map P, whose
    rows sum to 1. The student's logits are s = scale q k^T, so the sum is scale q_i . (P k)_i: the
    teacher attends to the student's keys.
    """
    q, k = student.q.to(v.dtype), student.k.to(v.dtype)
    out, logsumexp = _Attended.apply(q, k, v, student.scale)
    expected = _RowDot.apply(q, teacher.attend(k))
    return out, (logsumexp - student.scale * expected).mean()


class _Attended(torch.autograd.Function):
    """softmax(scale q k^T) v and the logsumexp of its logits, with gradients of both.

    A kernel's backward pass gives ds = P (g v^T - level), where level = rowsum(g * out); the
    gradient c of the logsumexp adds c P. One more column in g and out makes the level c smaller: 1
    in g and -c in out. Two columns hold c, so that a half-precision c keeps twice the digits.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        out, logsumexp, *rest = _forward(q, k, v, scale)
        tensors = [each for each in rest if each is None or isinstance(each, Tensor)]
        ctx.scale, ctx.lengths = scale, [each for each in rest if each is not None and not isinstance(each, Tensor)]
        ctx.save_for_backward(q, k, v, out, logsumexp, *tensors)
        return out, logsumexp

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logsumexp, *rest = ctx.saved_tensors
        width, dtype = q.shape[-1], q.dtype
        grad, each = grads[0].to(dtype), grads[1]
        coarse = each.to(dtype)
        grad, q, k, v, out = (F.pad(tensor, (0, PADDING)) for tensor in (grad, q, k, v, out))
        grad[..., width : width + 2] = 1
        out[..., width] = -coarse
        out[..., width + 1] = -(each - coarse)
        found = _backward((grad, q, k, v, out, logsumexp), rest, ctx.lengths, ctx.scale)
        return *(tensor[..., :width] for tensor in found), None


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


def _forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> list[Any]:
    """Output, logsumexp [B, heads, tokens] and what else the kernel's backward pass takes."""
    if q.device.type == "cpu":
        return list(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale))
    return list(torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale))[:8]


def _backward(given: tuple[Tensor, ...], rest: list[Tensor | None], lengths: list[int], scale: float) -> tuple[Tensor, ...]:
    """The gradients of q, k and v, given (gradient of the output, q, k, v, output, logsumexp)."""
    if given[0].device.type == "cpu":
        return tuple(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*given, 0.0, False, scale=scale))
    *sequences, seed, offset = rest
    operator = torch.ops.aten._scaled_dot_product_flash_attention_backward
    return tuple(operator(*given, *sequences, *lengths, 0.0, False, seed, offset, scale=scale))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_usable(device: str) -> bool:
    return _tried(device)


@functools.cache
def _tried(device: str) -> bool:
    """Whether this torch has both operators, with these arguments, and they give the attention, the
    logsumexp and the gradients of both."""
    dtype = DTYPES[device][-1]  # of several kernels of a device, the one that can be checked best
    try:
        with ExitStack() as within:  # whatever surrounds the first use
            for each in (torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False), _unhooked()):
                within.enter_context(each)
            given = torch.linspace(-9, 9, 3 * 80, device=device, dtype=torch.float64).sin().to(dtype).view(3, 1, 2, 5, 8)
            found = []
            attended: Callable[..., tuple[Tensor, Tensor]]
            for attended, kind in ((_Attended.apply, dtype), (_written_out, torch.float64)):
                q, k, v = (tensor.to(kind).requires_grad_() for tensor in given)  # not drawn: that would change a training
                out, logsumexp = attended(q, k, v, 1.0)
                total = out.double().square().sum() + logsumexp.double().square().sum()
                found.append((out, logsumexp, *torch.autograd.grad(total, (q, k, v))))
            close = 3e-2 if dtype.itemsize < 4 else 1e-9
            right = all(torch.allclose(one.double(), other, close, close) for one, other in zip(*found, strict=True))
    except Exception:  # private operators: another torch may lack them, take other arguments or give something else
        right = False
    if not right:
        print(f"bench: this torch's flash attention on {device} is not as expected: Distillation is slower", file=sys.stderr)
    return right


def _unhooked() -> AbstractContextManager[None]:
    """No hooks on saved tensors within, such as gradient checkpointing has."""
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def _written_out(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    logits = scale * q @ k.mT
    return logits.softmax(-1) @ v, logits.logsumexp(-1)
