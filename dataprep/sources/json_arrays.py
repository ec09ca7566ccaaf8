"""Elements of a JSON array, one at a time: files of a gigabyte are read with one element in memory.

An element is decoded by Python's ``json``, so that a value is what ``json.loads`` makes of it.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

MAX_ELEMENT_CHARS: Final = 1 << 26
"Longest element, and longest value beside the array."
_READ_BYTES: Final = 1 << 20
_DECODER: Final = json.JSONDecoder()
_WITH_LONG_INTEGERS: Final = json.JSONDecoder(parse_int=float)
"For an integer with more digits than Python converts; no annotation needs its value."
_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
"A string, which is skipped, or a bracket."
_NUMBER_GOES_ON: Final = re.compile(r"[0-9.eE+-]*\Z")
_WHITE: Final = re.compile(r"[ \t\n\r]*")


class TooDeeplyNested:
    """Stands for a value with more levels than Python's ``json`` decodes."""


class FormError(ValueError):
    """The content is JSON of another form."""


def elements(read: Callable[[int], bytes], key: str | None = None) -> Iterator[Any]:
    """Yield the elements of the array that is the content, or that an object holds under a key.

    Args:
        read: returns at most so many of the next bytes; none at the end.
        key: key of the array in the outermost object; None if the array is the content.

    Raises:
        ValueError: the content is not JSON.
        FormError: the content is not such an array or object.
    """
    text = _Text(read)
    if key is None:
        if text.peek() != "[":
            text.check()
            raise FormError("no list")
        yield from text.array()
    else:
        if text.peek() != "{":
            text.check()
            raise FormError("no object")
        yield from _under(text, key)
    if text.peek():
        raise ValueError("data follow the end of the JSON")


def members(read: Callable[[int], bytes]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of the object that is the content; None in place of an array.

    ``read`` and the errors are those of :func:`elements`.
    """
    text = _Text(read)
    if text.peek() != "{":
        text.check()
        raise FormError("no object")
    for key in text.keys():  # noqa: SIM118  # not a dictionary
        if text.peek() == "[":
            for _ in text.array():
                pass
            yield key, None
        else:
            yield key, text.value()


def _under(text: "_Text", key: str) -> Iterator[Any]:
    is_found = False
    for name in text.keys():  # noqa: SIM118  # not a dictionary
        if name != key or text.peek() != "[":
            text.value()
            continue
        if is_found:
            raise FormError(f"several lists {key}")
        is_found = True
        yield from text.array()
    if not is_found:
        raise FormError(f"no list {key}")


class _Text:
    """JSON text that is decoded as it is read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        head = b""
        while len(head) < 4 and (block := read(_READ_BYTES)):
            head += block
        self._read: Callable[[int], bytes] = read
        encoding = json.detect_encoding(head)
        self._decode = codecs.getincrementaldecoder(encoding)("surrogatepass").decode
        self._text, self._at = self._decode(head), 0
        self._num_dropped = 0
        "Characters before those in memory."
        self._is_end = False

    def peek(self) -> str:
        """Return the next character that is not white space; none at the end."""
        while True:
            self._at = _WHITE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, characters: str) -> str:
        """Return the next character, which is one of ``characters``.

        Raises:
            ValueError: it is another one, or there is none.
        """
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(characters)
            raise self._error(f"expected {wanted}, found {found or 'the end'}", self._at)
        self._at += 1
        return found

    def value(self) -> Any:
        """Return the next value, or a :class:`TooDeeplyNested` in its place.

        Raises:
            ValueError: it is not JSON, or is longer than ``MAX_ELEMENT_CHARS``.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoded()
                if self._is_end or not _NUMBER_GOES_ON.match(self._text, end):
                    self._at = end
                    return value
            except ValueError as error:
                if self._is_end or len(self._text) - self._at > MAX_ELEMENT_CHARS:
                    if isinstance(error, json.JSONDecodeError):
                        raise self._error(error.msg, error.pos) from None
                    raise
            self._more(len(self._text) - self._at)  # twice as long, so that repeats cost little

    def _decoded(self) -> tuple[Any, int]:
        """Return the next value and where it ends; ValueError if it is not JSON, or not whole."""
        try:
            return _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except ValueError:  # an integer that is too long
            return _WITH_LONG_INTEGERS.raw_decode(self._text, self._at)
        except RecursionError:
            depth = 0
            for found in _BRACKET.finditer(self._text, self._at):
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
                if not depth:
                    return TooDeeplyNested(), found.end()
            raise ValueError("a value is too deeply nested and has no end") from None

    def array(self) -> Iterator[Any]:
        """Yield the elements of the array that comes next."""
        self.take("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return

    def keys(self) -> Iterator[str]:
        """Yield the keys of the object that comes next; the caller reads the value of each."""
        self.take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                raise self._error(f"expected a key, found {self.peek() or 'the end'}", self._at)
            key = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def check(self) -> None:
        """Check that a value comes next, unless it is an array or object.

        Raises:
            ValueError: it is not JSON.
        """
        if self.peek() not in ("[", "{"):
            self.value()

    def _error(self, words: str, at: int) -> ValueError:
        return ValueError(f"{words} at character {self._num_dropped + at}")

    def _more(self, num_bytes: int = 0) -> bool:
        """Read on; return False at the end."""
        blocks = []
        while not self._is_end:
            block = self._read(max(num_bytes, _READ_BYTES))
            self._is_end = not block
            blocks.append(self._decode(block, self._is_end))
            num_bytes -= len(block)
            if blocks[-1] and num_bytes <= 0:
                break
        self._num_dropped += self._at
        self._text, self._at = self._text[self._at :] + "".join(blocks), 0
        return bool(self._text)
