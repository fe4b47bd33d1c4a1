"""Seeds from names: what results were trained with."""

import hashlib

from families.core.seeds import seed_of


def test_a_seed_is_the_beginning_of_a_digest():
    """Another number would make other students, orders and images than those of every committed result."""
    digest = hashlib.sha256(b"stream:7:depth").digest()
    assert seed_of("stream", 7, "depth") == int.from_bytes(digest[:8], "big") % 2**63 == 1270724629583034704
    assert seed_of("stream", 7, "depth", octets=7) == int.from_bytes(digest[:7], "big")
    assert seed_of("stream", "7:depth") == seed_of("stream", 7, "depth")
