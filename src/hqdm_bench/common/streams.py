"""Seeds of named random streams, without torch."""

import hashlib

__all__ = ["derive_seed"]


def derive_seed(*parts: str | int) -> int:
    """63-bit seed of a named stream, for example ``derive_seed("noise", seed, image)``.

    Streams with different names or numbers are independent for all practical purposes (sha256), so
    adding a new consumer of randomness never shifts another one's numbers.
    """
    name = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
