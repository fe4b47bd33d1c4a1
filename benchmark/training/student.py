"""A student: model, optimiser, schedule and attention transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmark.data.boxes import Target
from benchmark.spec.recipe import Recipe
from benchmark.spec.run import Transfer
from benchmark.training.detection.detector import body_of
from benchmark.training.distributed import ALONE, Ranks
from benchmark.training.inputs import precision_of
from benchmark.training.simmim import SimMIM
from benchmark.transfer.attention_transfer import AttentionTransfer
from benchmark.transfer.stochastic_depth import StochasticDepth
from benchmark.transfer.teacher_reader import Reader, TeacherAttention

NO_DECAY = ("*_token", "*pos_embed", "*relative_position_bias_table")  # and all vectors


class Student:
    """A model with its optimiser, schedule and attention transfer.

    Args:
        model: timm model, or a detector on one, on its device.
        transfer, reader: what is transferred, and the teacher (None without transfer).
        recipe: optimiser, schedule, precision and objective.
        ranks: the processes that share its batches.
    """

    def __init__(self, model: nn.Module, transfer: Transfer, reader: Reader | None, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        self.model, self.recipe, body = model, recipe, body_of(model)
        self.average = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema)
        body.set_grad_checkpointing(recipe.grad_checkpointing)  # type: ignore[operator]
        self.transfer = AttentionTransfer(transfer, body, reader)
        self.depth = StochasticDepth(body, recipe.drop_path)
        self.optimizer = create_optimizer_v2(self._groups(), opt="adamw", lr=recipe.lr, betas=recipe.betas, fused=True)
        self.masked = None
        if recipe.objective == "masked":
            dim, patch = int(model.embed_dim), int(model.patch_embed.patch_size[0])  # type: ignore[arg-type, union-attr, index]
            self.masked = SimMIM(dim, patch, recipe.mask_ratio).to(next(model.parameters()).device)
            beside = {"params": list(self.masked.parameters()), "weight_decay": recipe.weight_decay}
            self.optimizer.add_param_group(beside)
        warmup = round(recipe.warmup * recipe.steps)
        self.schedule = CosineLRScheduler(
            self.optimizer, t_initial=max(1, recipe.steps - warmup), warmup_t=warmup,
            lr_min=recipe.min_lr, warmup_lr_init=recipe.lr / (warmup + 1), warmup_prefix=True, t_in_epochs=False,
        )  # fmt: skip
        self.shared: DistributedDataParallel | None = None
        self.finds_unused = ranks.size > 1 and transfer.copies  # a copied block's own q, k or bias table may get no gradient
        if ranks.size > 1:
            self.shared = DistributedDataParallel(model, find_unused_parameters=self.finds_unused, gradient_as_bucket_view=True)
        self._set_forward()

    def _set_forward(self) -> None:
        self.forward: Callable[..., Tensor] = self.shared or self.model
        if self.recipe.compile:
            self.forward = torch.compile(self.forward)

    def _freeze_unused(self) -> None:
        """Freeze the parameters without a gradient after the first step, so that later steps need not
        find them (`find_unused_parameters` walks the graph in each step)."""
        self.finds_unused = False
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.grad is not None)
        self.shared = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self._set_forward()

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups by one rule for all classes: no weight decay for vectors and NO_DECAY,
        and with layer decay (Clark et al. 2020, arXiv 2003.10555; BEiT) a rate that falls per block
        from head to embeddings."""
        model, recipe = self.model, self.recipe
        spared = [name for name, _ in model.named_parameters() if any(fnmatchcase(name, each) for each in NO_DECAY)]
        if recipe.layer_decay is None:
            return list(param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=spared))
        depth = len(list(body_of(model).blocks))  # type: ignore[arg-type]
        spares = int(recipe.layer_decay_from == "last_block")
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                below, decays = layers_below_head(name, depth), parameter.dim() > 1 and name not in spared
                decay, scale = recipe.weight_decay if decays else 0.0, recipe.layer_decay ** max(0, below - spares)
                group = groups.setdefault((below, decays), {"params": [], "weight_decay": decay, "lr_scale": scale})
                group["params"].append(parameter)
        return list(groups.values())

    def begin(self, number: int) -> None:
        """Prepare step `number`: set its learning rate."""
        self.schedule.step_update(number)

    def learn(
        self, x: Tensor, y: Tensor | list[Target], reading: TeacherAttention, draws: Tensor | None = None, share: float = 1.0,
        last: bool = True, mark: Callable[[str], None] = lambda phase: None,
    ) -> Tensor:  # fmt: skip
        """Add the gradients of a batch; gives its loss.

        Args:
            x: normalised images [B, 3, H, W].
            y: labels [B] or probabilities [B, classes]; of a detector the targets of each image.
            reading: the teacher's attention for the same images.
            draws: random numbers of StochasticDepth.
            share: of the whole batch that this part is.
            last: whether this is the last part.
            mark: called with the name of each phase as it ends.
        """
        with ExitStack() as within:
            if self.shared is not None and not last:
                within.enter_context(self.shared.no_sync())
            within.enter_context(self.depth.dropping(draws))
            with precision_of(self.recipe, x.device):
                within.enter_context(self.transfer.guiding(reading))
                loss = self._loss(x, y)
            mark("forward")
            (loss if share == 1 else loss * share).backward()
        mark("backward")
        return loss.detach()

    def _loss(self, x: Tensor, y: Tensor | list[Target]) -> Tensor:
        if not isinstance(y, Tensor):
            return self.forward(x, y) + self.transfer.loss()
        smoothing = self.recipe.smoothing if y.dim() == 1 else 0.0  # mixed targets are smoothed already
        if self.masked is not None:
            return self.masked.loss(self.model, x, y, smoothing)
        return F.cross_entropy(self.forward(x).float(), y, label_smoothing=smoothing) + self.transfer.loss()

    def update(self) -> None:
        """Take an optimiser step, clear gradients, and average the weights if the recipe does."""
        if self.finds_unused:
            self._freeze_unused()
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.model)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within: the model has its averaged weights, if the recipe averages."""
        if self.average is None:
            yield
            return
        try:
            self._swap()
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        assert self.average is not None
        both = ([*model.parameters(), *model.buffers()] for model in (self.model, self.average.module))
        for own, averaged in zip(*both, strict=True):
            own.data, averaged.data = averaged.data, own.data


def layers_below_head(name: str, depth: int) -> int:
    """The depth of a parameter below the head, in blocks: 0 for the head and the norm before it, and
    for all of a detector but its body."""
    body = "backbone.body."
    if name.startswith(("backbone.levels.", "rpn.", "roi_heads.")):
        return 0
    parts = name.removeprefix(body).split(".")
    if parts[0] == "blocks":
        return depth - int(parts[1])
    return 0 if parts[0] in ("head", "norm", "fc_norm") else depth + 1
