"""Where an op came from: a sorted set of (file, node) pairs.

Locations travel with ops through every pass; a rewrite that makes one op of several unites their locations, so that the
reports, the debug table and the error messages of the last stage still speak of the user's nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """Sorted, duplicate-free (file, node) pairs. `file` may be empty for code that no model file gave."""

    places: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(node: str, file: str = "") -> Location:
        return Location(((file, node),))

    @staticmethod
    def union(locations: Iterable[Location]) -> Location:
        return Location(tuple(sorted({place for location in locations for place in location.places})))

    def __or__(self, other: Location) -> Location:
        return Location.union((self, other))

    def __bool__(self) -> bool:
        return bool(self.places)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(node for _, node in self.places)

    def __str__(self) -> str:
        files = sorted({file for file, _ in self.places})
        return "; ".join(
            (f"{file}: " if file else "")
            + ", ".join(f"node {node!r}" for owner, node in self.places if owner == file)
            for file in files
        )


UNKNOWN = Location()
