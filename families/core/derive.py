"""A family without a file: any ViT of timm, by its name.

Geometry, normalisation and licence are timm's. What is native follows from the constructor's
arguments: those in which the model differs from the plain ViT of its class. The start values of
these components are timm's defaults, which can differ from those of the authors' training code
(DeiT III, RoPE-ViT, BEiT v2); a family file is the place for the latter.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from families.spec import (
    STANDARD,
    TIMM,
    Component,
    Constant,
    Family,
    Host,
    Initial,
    Normal,
    Partial,
    Ref,
    RopeFrequencies,
    Teacher,
    UserError,
    one_line,
    quoted,
)

HOSTS = {
    VisionTransformer: STANDARD,
    Eva: Host("timm.models.eva:Eva", {"attn_type": "rope"}),
    Beit: Host("timm.models.beit:Beit"),
}
WIDTHS = {"tiny": 192, "small": 384, "medium": 512, "betwixt": 640, "base": 768, "large": 1024, "huge": 1280}
LICENCES = {"apache-2.0": "Apache-2.0", "mit": "MIT"}
SOURCE = "timm's constructor; the start value is timm's"
REMARK = "timm's start values of native components, not its authors'"

GEOMETRY = {"img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "device", "dtype"}
HEAD = {
    "num_classes", "global_pool", "fc_norm", "use_fc_norm", "pool_include_prefix", "head_init_scale",
    "attn_pool_num_heads", "attn_pool_mlp_ratio",
}  # fmt: skip
TRAINING = {
    "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init",
    "fix_init", "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords",
}  # fmt: skip
INPUT = {"dynamic_img_size", "dynamic_img_pad"}  # of images of several sizes; no part of the function at one
COMPONENTS = {
    "layer_scale": ("init_values", "attn_only_layer_scale"),
    "registers": ("reg_tokens", "num_reg_tokens"),
    "patch_pos_embed": ("no_embed_class",),
    "no_class_token": ("class_token",),
    "no_pos_embed": ("pos_embed", "use_abs_pos_emb"),
    "rope": (
        "use_rot_pos_emb", "rope_type", "rope_grid_offset", "rope_grid_indexing", "rope_temperature", "rope_rotate_half",
        "ref_feat_shape",
    ),
    "rel_pos_bias": ("use_rel_pos_bias", "use_shared_rel_pos_bias"),
    "swiglu": ("mlp_layer", "swiglu_mlp", "swiglu_align_to"),
    "activation": ("act_layer",),
    "mlp_ratio": ("mlp_ratio",),
    "sub_ln": ("scale_attn_norm", "scale_mlp_norm", "scale_attn_inner", "scale_mlp"),
    "norm": ("norm_layer",),
    "qk_norm": ("qk_norm",),
    "no_qkv_bias": ("qkv_bias",),
    "no_k_bias": ("attn_type", "qkv_fused"),
    "no_proj_bias": ("proj_bias",),
    "norm_pre": ("pre_norm", "use_pre_transformer_norm"),
    "no_final_norm": ("final_norm", "use_post_transformer_norm"),
    "patch_norm": ("embed_norm_layer",),
}  # fmt: skip
JOINS = {"registers": ("patch_pos_embed",), "swiglu": ("activation", "mlp_ratio")}  # become a part of it, where it is there
INERT = {"rope", "rel_pos_bias", "qk_norm", "no_k_bias"}


@functools.lru_cache(maxsize=64)
def derived(name: str) -> Family:
    """The family `timm:NAME` or `timm:NAME.TAG`, with one teacher.

    Raises UserError, one line, for a name that timm lacks, and for a model that is no plain ViT
    with components as in COMPONENTS.
    """
    word = name.removeprefix(TIMM)
    config = _config(word)
    model, given = _built(word)
    host = HOSTS.get(type(model))
    if host is None:
        classes = ", ".join(each.__name__ for each in HOSTS)
        raise UserError(f"{name} is a {type(model).__name__}; without a family file a teacher is one of timm's {classes}")
    usual = _usual(type(model), host)
    native = tuple(_components(name, usual, _differences(usual, given)))
    built: Any = model
    pixels = int(built.patch_embed.img_size[0])
    teacher = Teacher(
        size=min(WIDTHS, key=lambda size: abs(WIDTHS[size] - built.embed_dim)),
        model=word if not config.tag or "." in word else f"{word}.{config.tag}",
        embed_dim=int(built.embed_dim),
        depth=len(built.blocks),
        num_heads=int(built.blocks[0].attn.num_heads),
        patch_size=int(built.patch_embed.patch_size[0]),
        licence=LICENCES.get(config.license, config.license or "unknown"),
        img_size=pixels,
        native_size=pixels,
    )
    return Family(
        title=f"timm's {word}",
        paper="not known here; see timm's model card",
        recipe=config.tag or "not known",
        teachers=(teacher,),
        native=native,
        host=host,
        mean=config.mean,
        std=config.std,
        remark=REMARK if native else "",
    )


def _config(word: str) -> Any:
    """Timm's configuration of the weights. Raises UserError for a name or a tag that it lacks."""
    plain, _, tag = word.partition(".")
    if not timm.is_model(plain):
        near = get_close_matches(plain[:80], timm.list_models(), n=1, cutoff=0.5)
        raise UserError(f"timm has no model {quoted(plain)}" + (f"; did you mean {TIMM}{near[0]}?" if near else ""))
    try:
        config = timm.get_pretrained_cfg(word)
    except Exception as error:  # of an unknown tag, whatever timm raises
        raise UserError(f"{TIMM}{word}: {one_line(error)}") from error
    if config is None:
        tags = sorted({each.partition(".")[2] for each in timm.list_models(f"{plain}.*", pretrained=True)})
        raise UserError(f"timm has no weights {quoted(tag)} of {plain}; valid: {', '.join(tags) or 'none'}")
    return config


def _built(word: str) -> tuple[nn.Module, dict[str, Any]]:
    """Timm's model on the meta device, and the arguments that its constructor got, with defaults."""
    with _recorded() as seen, torch.device("meta"):
        try:
            model = timm.create_model(word, pretrained=False)
        except Exception as error:
            raise UserError(f"{TIMM}{word}: timm cannot build it: {one_line(error)}") from error
    return model, seen


@contextmanager
def _recorded() -> Iterator[dict[str, Any]]:
    """Within: the constructors of HOSTS leave their arguments in the dictionary."""
    seen: dict[str, Any] = {}
    before: dict[type, Any] = {each: each.__init__ for each in HOSTS}

    def recording(constructor: Any) -> Any:
        @functools.wraps(constructor)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            bound = inspect.signature(constructor).bind(self, *args, **kwargs)
            bound.apply_defaults()
            seen.update({key: value for key, value in bound.arguments.items() if key != "self"})
            constructor(self, *args, **kwargs)

        return init

    try:
        for each, constructor in before.items():
            each.__init__ = recording(constructor)  # type: ignore[misc]
        yield seen
    finally:
        for each, constructor in before.items():
            each.__init__ = constructor  # type: ignore[misc]


def _usual(model: type, host: Host) -> dict[str, Any]:
    """The arguments of the plain ViT of a class."""
    return {name: each.default for name, each in inspect.signature(model).parameters.items()} | dict(host.standard)


def _differences(usual: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in which a model differs from the usual ones."""
    ignored = GEOMETRY | HEAD | TRAINING | INPUT
    return {
        name: value
        for name, value in given.items()
        if name not in ignored and _meaning(name, value) != _meaning(name, usual[name])
    }


def _meaning(name: str, value: Any) -> Any:
    """Equal for values that build the same."""
    if name == "norm_layer":
        value = functools.partial(timm.layers.LayerNorm) if value is None else value
        norm = timm.layers.get_norm_layer(value)(8)
        return type(norm).__mro__[-3 if isinstance(norm, nn.LayerNorm) else 0], getattr(norm, "eps", None)
    if name == "act_layer":
        return type(timm.layers.get_act_layer(value or "gelu")())
    return bool(value) if name == "init_values" and not value else value


def _components(name: str, usual: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Component]:
    """The native components that these arguments make. Raises UserError for an argument of none."""
    by_name = {component: {each: found[each] for each in args if each in found} for component, args in COMPONENTS.items()}
    unknown = found.keys() - {each for args in by_name.values() for each in args}
    if unknown:
        raise UserError(f"{name} differs from a plain ViT in {', '.join(sorted(unknown))}; it needs a family file")
    for component, others in JOINS.items():
        if by_name[component]:
            for other in others:
                by_name[component] |= by_name.pop(other)
    for component, args in by_name.items():
        if args:
            stored = {each: _stored(name, each, value) for each, value in args.items()}
            if component == "no_class_token":
                stored |= {"global_pool": "avg", "use_fc_norm" if "use_abs_pos_emb" in usual else "fc_norm": False}
            told = ", ".join(f"{each}={getattr(value, 'path', value)}" for each, value in stored.items())
            yield Component(component, told, SOURCE, stored, _initial(component, args), component in INERT)


def _initial(component: str, args: Mapping[str, Any]) -> dict[str, Initial]:
    """Timm's start values, of parameters that the plain ViT lacks."""
    if component == "layer_scale" and "init_values" in args:
        return {"*.ls1.gamma" if args.get("attn_only_layer_scale") else "*.ls?.gamma": Constant(args["init_values"])}
    if component == "registers":
        return {"reg_token": Normal(1e-6)}
    if component == "rope" and args.get("rope_type") == "mixed":
        return {"rope.freqs": RopeFrequencies(args.get("rope_temperature", 10000.0))}
    return {}


def _stored(name: str, argument: str, value: Any) -> Any:
    """A value as a family file has it. Raises UserError for one that cannot be named."""
    if isinstance(value, functools.partial) and not value.args:
        return Partial(_path(name, argument, value.func), dict(value.keywords))
    if callable(value):
        return Ref(_path(name, argument, value))
    return list(value) if isinstance(value, tuple) else value


def _path(name: str, argument: str, value: Any) -> str:
    module, qualified = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if not module or not qualified.isidentifier():
        raise UserError(f"{name}: its {argument} is not a class that can be named; it needs a family file")
    return f"{module}:{qualified}"
