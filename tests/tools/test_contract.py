"""Every claim of the contract, for every teacher that the registry holds."""

import pytest

import families
from benchmark.cli import main
from benchmark.tools.check import CLAIMS, contract

TEACHERS = [
    pytest.param(name, size, marks=[pytest.mark.long] if size != families.spec(name).sizes[0] else [])
    for name in families.names()
    for size in families.spec(name).labels
    if size not in ("base_ft", "large_ft")  # of BEiT v2: a bias table in each block
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
@pytest.mark.parametrize(("family", "size"), TEACHERS)
def test_contract(family, size, claim):
    claim(families.load(family), size)


def test_a_broken_adapter_fails_the_contract(monkeypatch, capsys):
    """The table says which claim fails, and the command's exit code is 1."""
    from families.core.attention import Route

    honest = Route.logits
    monkeypatch.setattr(Route, "logits", lambda self: honest(self) if self.bias is None else honest(self) - self.bias)
    failed = {outcome.claim for outcome in contract("beitv2", "base") if not outcome.holds}
    assert any(claim.startswith("attention_maps gives the maps") for claim in failed)
    assert any(claim.startswith("Distillation's loss") for claim in failed)
    assert main(["check", "--family", "beitv2"]) == 1
    assert "fails" in capsys.readouterr().out
