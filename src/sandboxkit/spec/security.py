"""Security: what a program is not allowed to do beyond what its namespaces take from it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Security:
    """The default profile: no capability in any set, no_new_privs. Nothing in it can be weakened in this version."""

    @classmethod
    def default(cls) -> Security:
        """The profile every sandbox gets."""
        return cls()
