"""A Wikipedia dump: ``wikipedia.xml.bz2`` and ``wikipedia-index.txt.bz2``, multistream.

The dump is a bzip2 stream with the head, streams of pages, and a stream with the end; the index has
a line ``offset:page:title`` per page. Among the articles are redirects, talk pages, templates, and
stubs that are empty without their markup.
"""

import bz2
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from dataprep.miniweb.drawn_images import numbered_rng
from dataprep.miniweb.grammar import BACKGROUNDS, COLORS, SHAPES
from dataprep.miniweb.texts import prose
from dataprep.miniweb.truth import TextRow

DUMP: Final = "wikipedia.xml.bz2"
INDEX: Final = "wikipedia-index.txt.bz2"
_PAGES_OF_A_STREAM: Final = 100
_HEAD: Final = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" \
xml:lang="en">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>miniwiki</dbname>
    <case>first-letter</case>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Talk</namespace>
      <namespace key="10" case="first-letter">Template</namespace>
    </namespaces>
  </siteinfo>
"""
_END: Final = "</mediawiki>\n"
_INFOBOX: Final = """{{Short description|A drawing}}
{{Infobox drawing
| name = %s
| background = {{color box|%s}}
}}"""
_TABLE: Final = """{| class="wikitable sortable"
|+ Exhibitions
! Year !! Place
|-
| 1999 || [[Museum]]
|}"""


def write_wikipedia(folder: Path, num_pages: int, seed: int) -> list[TextRow]:
    """Write the dump and its index with ``num_pages`` pages of every kind."""
    rows, index = list[TextRow](), ""
    with (folder / DUMP).open("wb") as dump:
        dump.write(bz2.compress(_HEAD.encode()))
        for first in range(0, num_pages, _PAGES_OF_A_STREAM):
            offset, stream = dump.tell(), ""
            for i in range(first, min(first + _PAGES_OF_A_STREAM, num_pages)):
                title, xml, row = _page(seed, i)
                index += f"{offset}:{_page_id(i)}:{title}\n"
                stream += xml
                rows += [row] if row else []
            dump.write(bz2.compress(stream.encode()))
        dump.write(bz2.compress(_END.encode()))
    (folder / INDEX).write_bytes(bz2.compress(index.encode()))
    return rows


def _page_id(number: int) -> int:
    return 10 + 3 * number


def _page(seed: int, number: int) -> tuple[str, str, TextRow | None]:
    """Return a page's title, its XML, and its expected outcome if it is an article."""
    rng = numbered_rng(seed, 14, number)
    color, shape = str(rng.choice(list(COLORS))), str(rng.choice(SHAPES))
    title = f"{color.capitalize()} {shape} & {number}"
    name = f"wikipedia/{_page_id(number)}"
    if number % 10 == 3:
        target = shape.capitalize()
        markup = f"#REDIRECT [[{target}]] {{{{R from color}}}}"
        return title, _xml(number, title, markup, redirect=target), None
    if number % 10 == 6:
        kind, namespace = ("Talk", 1) if number % 20 == 6 else ("Template", 10)
        title = f"{kind}:{title}"
        (markup,) = prose(1, seed, 14, number)
        return title, _xml(number, title, markup, namespace), None
    if number % 10 == 8:
        markup = "{{Disambiguation}}\n\n[[Category:Stubs]]"
        return title, _xml(number, title, markup), TextRow("wikipedia", name, "too_short", None)
    background = str(rng.choice(list(BACKGROUNDS)))
    markup, text = _article(title, background, prose(3, seed, 14, number))
    return title, _xml(number, title, markup), TextRow("wikipedia", name, "ok", text)


def _article(title: str, background: str, paragraphs: list[str]) -> tuple[str, str]:
    """Return an article's markup and its prose."""
    first, second, third = paragraphs
    blocks = [
        _INFOBOX % (title, background),
        f"'''{title}''' is a [[Drawing (art)|drawing]] on a [[{background}]] ground."
        '<ref name="a">{{cite web|url=http://miniweb.test/|title=Drawings}}</ref> '
        f"{_linked(first)}<!-- to be checked -->",
        "== Description ==",
        "[[File:Drawing.jpg|thumb|right|As it was shown in the [[museum]]]]",
        f'{_linked(second)}<ref name="a" />',
        _TABLE,
        "=== Reception ===",
        f"''{third}''",
        "[[Category:Drawings]]",
    ]
    lead = f"{title} is a drawing on a {background} ground. {first}"
    return "\n\n".join(blocks), "\n".join([lead, "Description", second, "Reception", third])


def _linked(text: str) -> str:
    """Link the first shape in a text, and write the space after a sentence as an entity."""
    shape = next(shape for shape in SHAPES if f" {shape}" in text)
    text = text.replace(f" {shape}", f" [[{shape.capitalize()}|{shape}]]", 1)
    return text.replace(". ", ".&#32;", 1)


def _xml(
    number: int, title: str, markup: str, namespace: int = 0, redirect: str | None = None
) -> str:
    target = f"\n    <redirect title={quoteattr(redirect)} />" if redirect else ""
    return f"""  <page>
    <title>{escape(title)}</title>
    <ns>{namespace}</ns>
    <id>{_page_id(number)}</id>{target}
    <revision>
      <id>{1_000_000 + number}</id>
      <timestamp>2022-03-01T00:00:00Z</timestamp>
      <contributor>
        <username>Draughtsman</username>
        <id>7</id>
      </contributor>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="{len(markup.encode())}" xml:space="preserve">{escape(markup)}</text>
    </revision>
  </page>
"""
