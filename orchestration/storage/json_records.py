"""Small JSON records of the store: what a damaged one is, and how it is refused."""

import json
from collections.abc import Mapping
from typing import Any

from orchestration.errors import ManifestError

Kind = type | tuple[type, ...]


def object_of(data: bytes, where: str, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Return the JSON object in ``data``; ``kinds`` are its keys with types of their values.

    Raises:
        ManifestError: there is no such object; ``where`` names the file.
    """
    found = _parsed(data)
    held = found if isinstance(found, dict) else {}
    wrong = [key for key, kind in kinds.items() if not isinstance(held.get(key), kind)]
    if wrong or not held:
        raise _damaged(where, f"object with {wrong or 'keys'}")
    return held


def list_of(data: bytes, where: str, kinds: Kind | Mapping[str, Kind]) -> list[Any]:
    """Return the JSON list in ``data``; ``kinds`` is the type of its items, or those of their keys.

    Raises:
        ManifestError: there is no such list; ``where`` names the file.
    """
    found = _parsed(data)
    items = found if isinstance(found, list) else [None]
    if isinstance(kinds, Mapping):
        fits = all(
            isinstance(item, dict)
            and set(item) == set(kinds)
            and all(isinstance(item[key], kind) for key, kind in kinds.items())
            for item in items
        )
        if not fits:
            raise _damaged(where, f"list of objects with {', '.join(kinds)}")
    elif not all(isinstance(item, kinds) for item in items):
        raise _damaged(where, "list of the expected type")
    return items


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _damaged(where: str, expected: str) -> ManifestError:
    return ManifestError(
        f"{where} is damaged: it is no JSON {expected}; remove this file, or restore it"
    )
