"""The text of a recipe: YAML 1.2 with the line of every key, read and written.

PyYAML reads YAML 1.1, in which ``no`` is false, ``1:30`` is 90, ``050`` is 40, ``1e6`` is a string
and a repeated key silently replaces the first. Here a plain scalar is read by the core schema of
YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), with one difference: a number with leading
zeros stays a string, as programs disagree on it. A repeated key is an error. A number remembers how
it was written, so that a field of text receives ``1e6`` rather than ``1000000.0``; see
:class:`orchestration.params.StageParams`.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from orchestration.errors import RecipeError

Lines = dict[tuple[str, ...], int]
"The line of each key, by the keys that lead to it; an entry of a list is named by its index."

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
_RESOLVED: Final = (
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<"), ["<"]),
)
"Tags of plain scalars with their forms and first characters."
_MAX_NODES: Final = 100_000
"More values than any recipe has; aliases of aliases can stand for billions."
_NO_CHARACTER: Final = "an escape in this text names no character; a backslash itself is \\\\"
_MAX_DIGITS: Final = 40
"More digits than any integer of a recipe has; Python refuses to convert thousands of them."
_STRUCTURED: Final = ("[", "{", '"', "'")
"First characters of a value on the command line that is more than a plain scalar."


class WrittenInt(int):
    """An integer that remembers its text."""

    text: str


class WrittenFloat(float):
    """A floating-point number that remembers its text."""

    text: str


class _Refusal(yaml.MarkedYAMLError):
    """What YAML allows and a recipe does not."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (as PyYAML declares it)
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; a repeated key is an error, unless it is merged later (``<<``)."""
        node = super().compose_mapping_node(anchor)
        first: dict[Any, yaml.ScalarNode] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            # Numbers that are equal are one key, however they are written.
            value = key.value if key.tag == _MERGE else self.construct_object(key)
            if (other := first.get(key.value, first.get(value))) is not None:
                written = "" if other.value == key.value else f" as {other.value!r}"
                raise _wrong(
                    key,
                    f"the key {key.value!r} stands twice, first in line "
                    f"{other.start_mark.line + 1}{written}; merge the two or rename one",
                )
            first[key.value] = first[value] = key
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the keys of merged mappings before a mapping's own ones, which win.

        PyYAML's method can give a key the value that it had before a merge within a merge.
        """
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        own: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if key.tag != _MERGE:
                own.append((key, value))
                continue
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):  # of several, the first one wins
                if not isinstance(source, yaml.MappingNode):
                    raise _wrong(source, "<< takes a mapping, or a list of mappings")
                self.flatten_mapping(source)
                merged += source.value
        last = {_name(key): (key, value) for key, value in (*merged, *own)}
        node.value = list(last.values())

    def scan_flow_scalar_non_spaces(self, double: bool, start_mark: Any) -> Any:
        """Scan a part of a quoted scalar."""
        try:
            return super().scan_flow_scalar_non_spaces(double, start_mark)
        except (ValueError, OverflowError):  # of chr()
            raise _Refusal(problem=_NO_CHARACTER, problem_mark=start_mark) from None

    def construct_str(self, node: yaml.ScalarNode) -> str:
        """Construct text; two escapes of one character, as in JSON, become that character."""
        text = str(self.construct_scalar(node))
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise _wrong(node, f"{text[:40]!r} has half of a character (a surrogate)") from None

    def construct_int(self, node: yaml.ScalarNode) -> WrittenInt:
        """Construct an integer from its YAML 1.2 form."""
        text = str(self.construct_scalar(node))
        if not _INT.fullmatch(text) or len(text) > _MAX_DIGITS:
            raise _wrong(node, f"{text[:_MAX_DIGITS]!r} is not an integer")
        number = WrittenInt(int(text, 0))
        number.text = text
        return number

    def construct_float(self, node: yaml.ScalarNode) -> WrittenFloat:
        """Construct a floating-point number from its YAML 1.2 form."""
        text = str(self.construct_scalar(node))
        if not (_FLOAT.fullmatch(text) or _INT.fullmatch(text)):
            raise _wrong(node, f"{text!r} is not a number")
        plain = text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf")
        number = WrittenFloat("nan" if text.lower() == ".nan" else plain)
        number.text = text
        return number

    def construct_bool(self, node: yaml.ScalarNode) -> bool:
        """Construct true or false."""
        text = str(self.construct_scalar(node)).lower()
        if text not in ("true", "false"):
            raise _wrong(node, f"{text!r} is neither true nor false")
        return text == "true"


for _tag, _pattern, _first in _RESOLVED:
    # PyYAML matches only the beginning of a scalar.
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(f"{_TAG}{_tag}", _whole, _first)
for _known in (None, *(f"{_TAG}{_tag}" for _tag in ("map", "seq", "null"))):
    _Loader.yaml_constructors[_known] = yaml.SafeLoader.yaml_constructors[_known]
for _tag in ("str", "int", "float", "bool"):
    _Loader.add_constructor(f"{_TAG}{_tag}", getattr(_Loader, f"construct_{_tag}"))


class _Dumper(yaml.SafeDumper):
    """Quotes what is no string in YAML 1.1 or in YAML 1.2, so that every program reads the same."""


for _tag, _pattern, _first in _RESOLVED:
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Dumper.add_implicit_resolver(f"{_TAG}{_tag}", _whole, _first)


def read_recipe(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML file that holds a mapping; return its values and the line of each key.

    Raises:
        RecipeError: the file cannot be read or is not such a YAML file. The message is one line
            with the file and, where there is one, the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe ({error.strerror})") from None
    return parse_recipe(data, str(path))


def parse_recipe(data: bytes, name: str) -> tuple[dict[str, Any], Lines]:
    """Parse the bytes of a YAML file that holds a mapping; see :func:`read_recipe`."""
    loader = _loader(_text(data, name), name)
    try:
        node = loader.get_single_node()
        if node is None or (values := loader.construct_document(node)) is None:
            raise RecipeError(f"{name}: the recipe is empty; it must be a mapping of sections")
        lines = dict(islice(_lines(node, ()), _MAX_NODES))
        if len(lines) == _MAX_NODES:
            raise RecipeError(f"{name}: {_MAX_NODES} values or more; use fewer aliases (*)")
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}{_where_and_why(error)}") from None
    except RecursionError:
        raise RecipeError(f"{name}: not valid YAML: nested too deeply, or within itself") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        line = node.start_mark.line + 1
        what = "a list" if isinstance(values, list) else f"the value {str(values)[:40]!r}"
        raise RecipeError(
            f"{name}:{line}: a recipe must be a mapping of sections, as in `name: mine`, not {what}"
        )
    return values, lines


def parse_value(text: str) -> Any:
    """Parse a value of the command line or of an environment variable.

    Only a list, a mapping and a quoted string are YAML with its colons, comments and references;
    anything else is one plain scalar as it stands.

    Raises:
        RecipeError: the text is not a YAML value.
    """
    text = text.strip()
    loader = _loader(text, "a value")
    try:
        if text.startswith(_STRUCTURED):
            return loader.get_single_data()
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        return loader.construct_document(yaml.ScalarNode(tag, text))
    except yaml.YAMLError as error:
        raise RecipeError(f"{text!r}: not a YAML value ({_why(error)})") from None
    except RecursionError:
        raise RecipeError(f"{text[:40]!r}…: not a YAML value: nested too deeply") from None
    finally:
        loader.dispose()


def dump_recipe(values: dict[str, Any]) -> bytes:
    """Return the YAML text of JSON-able values, which :func:`parse_recipe` reads back."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False)
    return text.encode()


def _loader(text: str, name: str) -> _Loader:
    try:
        return _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise RecipeError(
            f"{name}:{line}: the character U+{error.character:04X} may not stand in YAML; remove it"
        ) from None


def _text(data: bytes, name: str) -> str:
    """Return a file's text, which must be UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        line = data[: data.find(b"\0")].count(b"\n") + 1 if b"\0" in data else 1
        raise RecipeError(
            f"{name}:{line}: the file is UTF-16 text or binary; save it as UTF-8 text"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError(
            f"{name}:{line}: the byte 0x{data[error.start]:02x} is not UTF-8; save the file as "
            "UTF-8 text"
        ) from None


def _lines(node: yaml.Node, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the line of every key below a node."""
    if isinstance(node, yaml.MappingNode):
        entries = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        entries = [(str(i), value, value) for i, value in enumerate(node.value)]
    else:
        return
    for name, key, value in entries:
        yield (*keys, str(name)), key.start_mark.line + 1
        yield from _lines(value, (*keys, str(name)))


def _name(key: yaml.Node) -> Any:
    return key.value if isinstance(key, yaml.ScalarNode) else id(key)


def _wrong(node: yaml.Node, problem: str) -> _Refusal:
    return _Refusal(problem=problem, problem_mark=node.start_mark)


def _where_and_why(error: yaml.YAMLError) -> str:
    """Return ``:line: what is wrong``, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return f": not valid YAML: {' '.join(str(error).split())}"
    mark = error.problem_mark or error.context_mark
    return f":{mark.line + 1}: {_why(error)}" if mark else f": {_why(error)}"


def _why(error: yaml.YAMLError) -> str:
    context, problem = getattr(error, "context", None), getattr(error, "problem", None)
    if problem and "'\\t'" in problem:
        return "a tab stands where YAML takes only spaces; indent with spaces"
    if isinstance(error, _Refusal):
        return str(problem)
    if problem == "mapping values are not allowed here":
        problem = "a second colon in one line; put a value with a colon in quotes"
    return f"not valid YAML: {', '.join(filter(None, (context, problem)))}"
