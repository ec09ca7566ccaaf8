"""Masking of secrets in text that is stored, logged or shown.

A URL can carry secrets before its host (``https://user:password@host``) and in its query or
fragment (a presigned URL's signature, an access token). They are replaced by ``***``; the rest of
the text stays.
"""

import re
from typing import Any, Final

MASK: Final = "***"
_USER: Final = re.compile(
    r"(?<=://)(?:"
    r"[^/\s@:?#\[]*:(?!\d*(?:[/?#]|$))[^\s@]*@(?:[^\s/?#@]*@)*"  # a password may hold any character
    r"|[^/\s?#]*@)"
)
_SECRET_NAME: Final = (
    r"(?:[\w.\-]|%5[Bb])*"
    r"(?:signature|credential|token|secret|passw(?:or)?d|passphrase|pwd|api[_-]?key|access[_-]?key"
    r"|authorization)"
    r"[\w.\-\]%]*"
    r"|sig|key|policy|key-pair-id|code|hmac|jwt|auth|session[_-]?id"
)
_QUERY: Final = re.compile(rf"([?&;#](?:{_SECRET_NAME})=)[^&;#\s\"'<>]+", re.IGNORECASE)


def masked(text: str) -> str:
    """Return ``text`` with the secrets of every URL in it replaced."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\g<1>{MASK}", _USER.sub(f"{MASK}@", text))


def masked_values(value: Any) -> Any:
    """Return JSON-able values with the secrets of every string in them replaced."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(inner) for inner in value]
    return value
