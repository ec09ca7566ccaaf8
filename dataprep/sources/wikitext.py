"""Wikitext to prose, without templates, tables, references, files and categories.

Block tags become line breaks. A few templates that stand for a word or a number keep their text
(``_TEMPLATES``); every other template is dropped, and brackets that are left empty go with it.
Variant rules are resolved before (``language_variants``).

mwparserfromhell tries each opening that is never closed up to the end of the page, so its time
grows with the square of such a page. ``check_cost`` bounds it by a count that depends on the page
alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

_MAX_COST: Final = 20_000_000
"Largest number of characters behind unclosed openings, summed over them: a few seconds."
_NOT_TEXT: Final = frozenset(
    {
        *("categorytree", "ce", "chem", "gallery", "graph", "hiero", "imagemap", "includeonly"),
        *("indicator", "inputbox", "mapframe", "maplink", "math", "ref", "references", "score"),
        *("section", "source", "syntaxhighlight", "table", "templatedata", "timeline"),
    }
)
_BLOCKS: Final = frozenset(
    {
        *("blockquote", "br", "center", "dd", "div", "dl", "dt", "h1", "h2", "h3", "h4", "h5"),
        *("h6", "hr", "li", "ol", "p", "poem", "pre", "ul", "caption", "td", "th", "tr"),
        *("article", "aside", "details", "figcaption", "footer", "header", "summary"),
    }
)
_NEVER_CLOSED: Final = frozenset({"br", "dd", "dt", "hr", "img", "li", "td", "th", "tr", "wbr"})
_BRACKETS: Final = re.compile(
    r"(?P<open>\{\{|\[\[|\{\||<!--|\[(?=https?:|//))|(?P<close>\}\}|\]\]|\|\}|-->|\])"
    r"|<(?P<end>/?)(?P<tag>[a-zA-Z]\w*)(?:[^<>]*?(?P<self>/)?>)?"
)
_OPENING_OF: Final = {"}}": "{{", "]]": "[[", "|}": "{|", "-->": "<!--", "]": "["}
_SWITCH: Final = re.compile(r"__(?!_)(?:(?![a-z\d])\w)+?__")
"A behavior switch, such as ``__NOTOC__``, in any language."
_EMPTY_BRACKETS: Final = re.compile(r"[ \t]*(?:\([\s,;:–-]*\)|\[[\s,;:]*\]|（[\s，；：、]*）)")
_LEADING_MARKS: Final = re.compile(r"([(（])\s*(?:[,;，；、]\s*)+")

Arguments = Sequence[str]


class TooCostly(ValueError):
    """A page has so many unclosed openings that parsing it would take minutes."""


def plain_text(markup: str, dropped_namespaces: frozenset[str]) -> str:
    """Return the prose of a page.

    Args:
        markup: wikitext.
        dropped_namespaces: namespaces, in lower case, of links to drop, such as ``file``.

    Raises:
        TooCostly: see :func:`check_cost`.
    """
    markup = _without_open_comment(markup)
    check_cost(markup)
    text = "".join(_render(mwparserfromhell.parse(markup), dropped_namespaces))
    text = _SWITCH.sub("", text)
    changed = 1
    while changed:  # brackets within brackets
        text, changed = _EMPTY_BRACKETS.subn("", text)
    return _LEADING_MARKS.sub(r"\1", text)


def check_cost(markup: str) -> None:
    """Raise TooCostly if parsing a page would take long: one pass over its brackets and tags."""
    stack: list[tuple[str, int]] = []
    num_open: dict[str, int] = {}
    cost = 0
    for found in _BRACKETS.finditer(markup):
        name = found["open"] or _OPENING_OF.get(found["close"] or "") or found["tag"].lower()
        if found["close"] or found["end"]:
            while num_open.get(name):
                opening, start = stack.pop()
                num_open[opening] -= 1
                if opening == name:
                    break
                cost += len(markup) - start
        elif found["self"] is None and name not in _NEVER_CLOSED:
            stack.append((name, found.start()))
            num_open[name] = num_open.get(name, 0) + 1
    cost += sum(len(markup) - start for _, start in stack)
    if cost > _MAX_COST:
        raise TooCostly(
            f"{len(markup)} characters of wikitext with {len(stack)} brackets or tags left open "
            "would take too long to parse"
        )


def _render(code: Wikicode | None, dropped: frozenset[str]) -> Iterator[str]:
    for node in code.nodes if code is not None else ():
        yield from _render_node(node, dropped)


def _render_node(node: Any, dropped: frozenset[str]) -> Iterator[str]:
    match node:
        case nodes.Text():
            yield str(node.value)
        case nodes.HTMLEntity():
            yield str(node.normalize())
        case nodes.Heading():
            yield from ("\n\n", *_render(node.title, dropped), "\n\n")
        case nodes.Wikilink():
            if namespace_of(str(node.title)) in dropped:
                return
            if node.text is not None:
                yield from _render(node.text, dropped)
            else:  # a colon before the title makes a link where none would be seen
                yield "".join(_render(node.title, dropped)).removeprefix(":")
        case nodes.ExternalLink():
            yield from _render(node.title if node.brackets else node.url, dropped)
        case nodes.Argument():
            yield from _render(node.default, dropped)
        case nodes.Tag():
            yield from _render_tag(node, dropped)
        case nodes.Template():
            yield _template_text(node, dropped)


def _render_tag(node: nodes.Tag, dropped: frozenset[str]) -> Iterator[str]:
    name = str(node.tag).strip().lower()
    if name in _NOT_TEXT:
        return
    boundary = "\n\n" if name in _BLOCKS and not (node.wiki_markup and name != "hr") else ""
    yield from (boundary, *_render(node.contents, dropped), boundary)


def namespace_of(title: str) -> str:
    """Return the namespace of a link's title as MediaWiki normalizes it, in lower case."""
    namespace, colon, _ = title.partition(":")
    return " ".join(namespace.replace("_", " ").split()).lower() if colon else ""


def _template_text(node: nodes.Template, dropped: frozenset[str]) -> str:
    name = " ".join(str(node.name).replace("_", " ").split()).lower()
    write = _TEMPLATES.get(name) or (_first if name.startswith("lang-") else None)
    if write is None:
        return ""
    arguments = {
        int(name): "".join(_render(parameter.value, dropped)).strip()
        for parameter in node.params
        if (name := str(parameter.name).strip()).isdecimal()
    }
    return write([arguments[number] for number in sorted(arguments)])


def _without_open_comment(markup: str) -> str:
    """Return a page without a comment that is never closed, which reaches to the page's end."""
    start = markup.find("<!--", max(markup.rfind("-->"), 0))
    return markup if start < 0 else markup[:start]


def _first(arguments: Arguments) -> str:
    return arguments[0] if arguments else ""


def _second(arguments: Arguments) -> str:
    return arguments[1] if len(arguments) > 1 else ""


def _joined(arguments: Arguments) -> str:
    return " ".join(arguments)


def _quantity(arguments: Arguments) -> str:
    """``{{convert|1300|mi|km}}``, ``{{convert|3|to|5|mi}}``: number and unit as given."""
    is_range = len(arguments) > 3 and not re.search(r"\d", arguments[1])
    return " ".join(arguments[: 4 if is_range and re.search(r"\d", arguments[2]) else 2])


def _date(arguments: Arguments) -> str:
    """``{{birth date|1950|1|2}}``: an ISO 8601 date."""
    numbers = [part for part in arguments[:3] if part.isdecimal()]
    return "-".join(f"{int(part):02d}" for part in numbers)


def _fraction(arguments: Arguments) -> str:
    """``{{frac|1|2}}``, ``{{frac|3|1|2}}``."""
    return " ".join([*arguments[:-2], "/".join(arguments[-2:])])


def _constant(text: str) -> Callable[[Arguments], str]:
    return lambda _: text


_TEMPLATES: Final[dict[str, Callable[[Arguments], str]]] = {
    **dict.fromkeys(("convert", "cvt", "unité", "val"), _quantity),
    **dict.fromkeys(("lang", "langue", "transl", "transliteration"), _second),
    **dict.fromkeys(("nowrap", "nobr", "small", "smaller", "big", "abbr", "sic", "em"), _first),
    **dict.fromkeys(("formatnum", "strong", "nihongo", "zh", "heures"), _first),
    **dict.fromkeys(("birth date", "birth date and age", "death date", "start date"), _date),
    **dict.fromkeys(("death date and age", "end date", "film date", "dob"), _date),
    **dict.fromkeys(("frac", "fraction", "sfrac"), _fraction),
    **dict.fromkeys(("date", "date-", "date de naissance"), _joined),
    **dict.fromkeys(("circa", "c."), lambda arguments: " ".join(["c.", *arguments[:1]])),
    **dict.fromkeys(("snd", "spnd", "spaced ndash"), _constant(" – ")),
    **dict.fromkeys(("nbsp", "space"), _constant(" ")),
    **dict.fromkeys(("ndash", "en dash"), _constant("–")),
    **dict.fromkeys(("'", "apostrophe"), _constant("'")),
}
"Templates that keep text, by name in lower case."
