"""Every claim of the contract, for every teacher that the registry holds."""

import pytest

import families
from benchmark.cli import main
from benchmark.tools.check import CLAIMS, contract

TEACHERS = [(name, size) for name in families.names() for size in families.spec(name).sizes]


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
