"""A student's attention and its cross-entropy to the teacher's map in one pass, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmark.transfer import flash_distillation
from benchmark.transfer.map_parts import parts_of, products_of
from families.core.attention import Map, Route, part


def attend_and_compare(student: Route, v: Tensor, teacher: Route | Map) -> tuple[Tensor, Tensor]:
    """The student's attention output [B, heads, tokens, head_dim] and its cross-entropy to the
    teacher's map, a scalar.

    Both come from one set of the student's logits s. With the gradients g of the output and c of a
    row's cross-entropy, ds = P_s (g v^T - (g . output)) + c (P_s - P_t), since the rows of P_t sum
    to 1. Given a Map of the teacher, the student's map is held for the backward pass. Given a
    Route, no map is held: flash kernels do all of it where they serve; else both maps are computed
    in parts, and again in the backward pass.
    """
    if isinstance(teacher, Route) and flash_distillation.serves(student, v, teacher):
        return flash_distillation.attend_and_compare(student, v, teacher)
    bias = student.bias
    if bias is not None:
        bias = bias.reshape((1,) * (4 - bias.dim()) + bias.shape)
    found: tuple[Tensor, Tensor] = _Distilled.apply(student.q, student.k, v, bias, student.scale, teacher)
    return found


class _Distilled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, teacher: Route | Map
    ) -> tuple[Tensor, Tensor]:
        ctx.scale, ctx.teacher, ctx.dtypes = scale, teacher, (q.dtype, k.dtype, v.dtype)
        dtype = torch.promote_types(q.dtype, torch.float32)
        held = isinstance(teacher, Map)
        with products_of(ctx.dtypes, q.device):
            # One dense copy each: q, k and v are views of one projection.
            q, k, v = (t.to(dtype).clone(memory_format=torch.contiguous_format) for t in (q, k, v))
            q.mul_(scale)
            parts = parts_of(q, held)
            out, total, kept = None if len(parts) == 1 else torch.empty_like(v), q.new_zeros(()), []
            for images, queries in parts:
                logits = _logits(q, k, bias, images, queries)
                target = teacher.rows(images, queries).to(dtype)
                highest = logits.amax(-1)
                total -= torch.dot(target.reshape(-1), logits.reshape(-1))
                weights = logits.softmax(-1)
                total += (highest - weights.amax(-1).log()).sum()  # logsumexp of the logits
                product = weights @ v[images]
                if out is None:
                    out = product
                else:
                    out[images, :, queries] = product
                if held:
                    kept.append(weights)
            assert out is not None
            ctx.save_for_backward(q, k, v, bias, out, *kept)
            return out.to(ctx.dtypes[2]), total / q[..., 0].numel()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, *kept = ctx.saved_tensors
        with products_of(ctx.dtypes, q.device):
            grad, each = grads[0].to(q.dtype).contiguous(), grads[1].to(q.dtype) / q[..., 0].numel()
            level = (grad * out).sum(-1, keepdim=True) - each
            parts = parts_of(q, len(kept) > 0)
            dq = dk = dv = None
            if len(parts) > 1:
                dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
            dbias = None if bias is None or not ctx.needs_input_grad[3] else torch.zeros_like(bias)
            for images, queries in parts:
                weights = kept[0] if kept else _logits(q, k, bias, images, queries).softmax(-1)
                here = grad[images, :, queries]
                to_v = weights.transpose(-2, -1) @ here
                ds = here @ v[images].transpose(-2, -1)
                ds.sub_(level[images, :, queries]).mul_(weights)
                ds.addcmul_(ctx.teacher.rows(images, queries).to(q.dtype), each, value=-1)
                to_q, to_k = ds @ k[images], ds.transpose(-2, -1) @ q[images, :, queries]
                if dq is None or dk is None or dv is None:
                    dq, dk, dv = to_q, to_k, to_v
                else:
                    dq[images, :, queries] = to_q
                    dk[images] += to_k
                    dv[images] += to_v
                if dbias is not None:
                    into = part(dbias, images, queries)
                    into += ds.sum_to_size(into.shape)
            assert dq is not None and dk is not None and dv is not None
            dq.mul_(ctx.scale)
        kinds = ctx.dtypes
        return dq.to(kinds[0]), dk.to(kinds[1]), dv.to(kinds[2]), dbias, None, None


def _logits(q: Tensor, k: Tensor, bias: Tensor | None, images: slice, queries: slice) -> Tensor:
    logits = q[images, :, queries] @ k[images].transpose(-2, -1)  # q is scaled already
    return logits if bias is None else logits.add_(part(bias, images, queries))
