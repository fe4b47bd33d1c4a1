"""Seeds from names."""

from __future__ import annotations

import hashlib


def seed_of(*parts: object, octets: int = 8) -> int:
    """A seed below 2**63: the first `octets` of the sha256 of the parts, joined by colons.

    It is the same in every process and on every machine, and each name has a random stream of its
    own.
    """
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:octets], "big") % 2**63
