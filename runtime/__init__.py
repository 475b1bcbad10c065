"""The simulator: `Session` runs an offline model on arrays. Importing this package loads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.session import Session

__all__ = ["Session"]


def __getattr__(name: str) -> Any:
    if name == "Session":
        from runtime.session import Session

        return Session
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
