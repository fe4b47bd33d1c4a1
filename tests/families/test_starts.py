"""Starts of attention weights that need no teacher, against their formulas written out with numpy."""

import numpy as np
import pytest
import timm
import torch
from torch.nn.functional import layer_norm

from families.core.initialise import initialise
from families.core.seeds import seed_of
from families.core.starts import start_attention

GEOMETRY = {"img_size": 64, "patch_size": 8, "embed_dim": 144, "depth": 2, "num_heads": 9, "num_classes": 5}


def made(start, seed=3, **changes):
    model = timm.create_model("vit_tiny_patch16_224", **GEOMETRY | changes)
    return start_attention(initialise(model, f"student:{seed}", {}), start, seed).double()


def products(block, heads=9):
    """Q K^T of each head [heads, d, d] and V O [d, d], as they act on rows."""
    q, k, v = (each.detach().numpy().T for each in block.attn.qkv.weight.chunk(3))
    by_head = (each.reshape(len(each), heads, -1).transpose(1, 0, 2) for each in (q, k))
    queries, keys = by_head
    return queries @ keys.transpose(0, 2, 1), v @ block.attn.proj.weight.detach().numpy().T


def test_the_rest_starts_as_usual_and_each_seed_differs():
    usual, others = made("usual").state_dict(), {start: made(start).state_dict() for start in ("mimetic", "impulse")}
    for start, state in others.items():
        changed = {name for name in usual if not torch.equal(usual[name], state[name])}
        weights = {f"blocks.{n}.attn.{part}.weight" for n in range(2) for part in ("qkv", "proj")}
        assert changed == weights | ({"pos_embed"} if start == "impulse" else set())
        again, other = made(start).state_dict(), made(start, seed=4).state_dict()
        assert all(torch.equal(state[name], again[name]) for name in usual)
        assert not any(torch.equal(state[name], other[name]) for name in weights)
    torch.testing.assert_close(others["impulse"]["pos_embed"], usual["pos_embed"] * 18, rtol=1e-6, atol=0)


def test_mimetic_is_the_nearest_of_its_rank_to_noise_and_identity():
    """Trockman and Kolter 2023, with the noise drawn again."""
    d, heads, rank = 144, 9, 16
    for number, block in enumerate(made("mimetic").blocks):
        generator = torch.Generator().manual_seed(seed_of("student:3", f"blocks.{number}.attn", "mimetic"))
        noise = [torch.randn(d, d, generator=generator, dtype=torch.float64).numpy() / np.sqrt(d) for _ in range(heads + 1)]
        maps, output = products(block)
        for head in range(heads):
            u, s, v = np.linalg.svd(0.7 * noise[head] + 0.7 * np.eye(d))
            np.testing.assert_allclose(maps[head], (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-5)
        np.testing.assert_allclose(output, 0.4 * noise[-1] - 0.4 * np.eye(d), atol=1e-5)
        assert not np.allclose(maps[0], maps[1], atol=0.1)


def test_impulse_attends_to_one_neighbour_a_head():
    """On position embeddings alone, as a 3 x 3 convolution by an impulse: each head to another place of the window."""
    model = made("impulse", embed_dim=576, depth=1)  # heads as wide as there are patches
    side, places = 8, (4, 1, 5, 3, 7, 0, 2, 6, 8)
    seen = layer_norm(model.pos_embed[0, 1:], (576,)).detach().numpy()
    for block in model.blocks:
        maps, output = products(block)
        assert abs(np.trace(output) / 576 + 0.4) < 0.02
        for head, place in enumerate(places):
            down, right = place // 3 - 1, place % 3 - 1
            logits = seen @ maps[head] @ seen.T
            inside = [(r, c) for r in range(side) for c in range(side) if 0 <= r + down < side and 0 <= c + right < side]
            hit = [np.argmax(logits[r * side + c]) == (r + down) * side + c + right for r, c in inside]
            assert np.mean(hit) > 0.9, (place, np.mean(hit))
        norms = [np.linalg.norm(part) for part in block.attn.qkv.weight.detach().numpy()[:1152].reshape(18, 64, 576)]
        np.testing.assert_allclose(norms, 7, rtol=1e-5)


@pytest.mark.parametrize("grid", [(16, 8), (32, 8)])
def test_impulse_where_there_are_fewer_patches_than_a_head_is_wide(grid):
    image, patch = grid
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=image, patch_size=patch, embed_dim=64, depth=1, num_heads=2, num_classes=2
    )
    start_attention(initialise(model, "student:0", {}), "impulse", 0)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
