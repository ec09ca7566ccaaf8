"""Wikitext becomes prose in any wiki's language, in bounded time."""

import bz2
import html

import mwparserfromhell
import pytest

from dataprep.sources import wikipedia
from dataprep.sources.documents import BadDocument, Document
from dataprep.text import clean_document

NO_NAMESPACES: frozenset[str] = frozenset()


def plain(markup: str) -> str:
    return clean_document(wikipedia.plain_text(markup, frozenset({"file", "category"})))


@pytest.mark.parametrize(
    ("file", "category", "text", "expected"),
    [
        ("Datei", "Kategorie", "[[{f}:X.jpg|mini|Bild]] Text [[{c}:Y]]", "Text"),
        ("Fichier", "Catégorie", "[[ {f} : X|[[A]]]]Le [[mot|mot]].[[{c}:Y|Z]]", "Le mot."),
        ("Файл", "Категория", "[[{f}:X.png|мини|Кот]]Это кот.\n[[{c}:Коты]]", "Это кот."),
        ("File", "Category", "[[檔案:X|圖]]一隻貓。[[image:Y]][[{c}:貓]]", "一隻貓。"),
        ("文件", "分类", "[[{f}:X|猫]]一只猫。[[{c}:猫]][[File:Z]]", "一只猫。"),
        ("Berkas", "Ke &amp; A", "[[ke_&_a: Y]]Kata [[Kota: A]].", "Kata Kota: A."),
    ],
)  # fmt: skip
def test_links_to_files_and_categories_are_dropped_by_the_siteinfo_of_the_dump(
    tmp_path, file, category, text, expected
):
    head = (
        "<mediawiki>\n<siteinfo><namespaces>"
        '<namespace key="0" case="first-letter" />'
        f'<namespace key="6" case="first-letter">{file}</namespace>'
        f'<namespace key="14">{category}</namespace></namespaces></siteinfo>\n'
    )
    markup = html.escape(text.format(f=file, c=category))
    page = f"<page><ns>0</ns><id>7</id><revision><text>{markup}</text></revision></page>"
    packed = bz2.compress(head.encode())
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(packed + bz2.compress(page.encode()))
    size = path.stat().st_size - len(packed)
    (article,) = wikipedia.read_streams(path, wikipedia.StreamRange(len(packed), size))
    assert isinstance(article, Document) and clean_document(article.text) == expected


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("Paris<br>London<div>one</div><div>two</div>", "Paris London one two"),
        ("a<br />b<p>c</p>d", "a b c d"),
        ("x<blockquote>said</blockquote>y<BR/>z", "x said y z"),
        ("<td>a</td><td>b</td><tr><th>c</th>d", "a b c d"),
        ("<details><summary>a</summary>b</details><figcaption>c</figcaption>d", "a b c d"),
        ("H<sub>2</sub>O and <b>bo</b>ld", "H2O and bold"),
        ("* one\n* two", "one two"),
        ("It is {{convert|1300|mi|km}} long (born {{birth date|1950|1|2}}).",
         "It is 1300 mi long (born 1950-01-02)."),
        ("{{Convert|3|to|5|mi}}, {{frac|1|2}}", "3 to 5 mi, 1/2"),
        ("{{lang|fr|mot}}, {{lang-de|Wort}}", "mot, Wort"),
        ("{{unité|12|km}} le {{date|2|janvier|1950}}", "12 km le 2 janvier 1950"),
        ("A ({{IPA|x}}) b (; {{x}}, born 1950)", "A b (born 1950)"),
        ("c ([[File:a.jpg]]) d（{{y}}，）e", "c de"),
        ("f(x) stays, array[0] too ({{a}} (b))", "f(x) stays, array[0] too ( (b))"),
        ("a[[File:x|thumb|A {{b}}]]<ref>{{c}}</ref><math>x</math>", "a"),
        ("[http://a.b label] [http://a.b] http://c.d", "label http://c.d"),
        ("See [[:Category:Birds]], [[:File:A.jpg|a map]] and [[:fr:Titre]].",
         "See Category:Birds, a map and fr:Titre."),
        ("__NOTOC__One__NO_INDEX__ two __СОДЕРЖАНИЕ__ __init__ a__b__", "One two __init__ a__b__"),
        ("{{lang|1=de|2=Wort}}, {{frac|2=3|1=2}}", "Wort, 2/3"),
        ("a<!-- b --> c <!-- never closed [[d]]", "a c"),
        ("a <hiero>A1</hiero><ce>H2O</ce><source>x = 1</source>b <mapframe>{}</mapframe>", "a b"),
        ("<includeonly>not here</includeonly><onlyinclude>here</onlyinclude>", "here"),
    ],
)  # fmt: skip
def test_markup_leaves_words_apart_and_no_empty_brackets(markup, expected):
    assert " ".join(plain(markup).split()) == expected


@pytest.mark.parametrize("markup", [
    "'''Red''' is a [[color]] of the [[visible spectrum|spectrum]].",
    "== Uses ==\nIt is &amp; ''was'' used.<!-- no --> <nowiki>[[x]]</nowiki>",
    "Der ''Hund'' ([[Canis lupus|Wolf]]) ist ein Tier.{{Belege}}",
])  # fmt: skip
def test_plain_markup_gives_the_prose_that_mwparserfromhell_gives(markup):
    theirs = mwparserfromhell.parse(markup).strip_code()
    assert plain(markup).split() == clean_document(theirs).split()


@pytest.mark.parametrize(
    ("opening", "number"),
    [("{{a|", 8000), ("<ref>", 20_000), ("[[a|", 16_000), ("<a b='", 8000), ("{{a|[[b|", 8000),
     ("{|\n", 20_000), ("{{{a|", 8000), ("{{a|[[b|}}", 8000), ("<div><ref>", 9000)],
)  # fmt: skip
def test_a_page_of_unclosed_openings_that_would_take_minutes_is_a_bad_document(opening, number):
    article = wikipedia._article("1", opening * number, NO_NAMESPACES)
    assert isinstance(article, BadDocument) and article.reason == "unclosed_markup"


def test_a_long_page_with_a_few_unclosed_openings_is_read():
    markup = (
        "{{open| <br> '''Prose''' with <ref>note</ref> [[a|links]] and <ref name=x /> more. " * 3
    )
    text = "Prose with [[links]] and {{templates|a=b}}<ref>c</ref>.<br>" * 4000
    assert "Prose with links and" in wikipedia.plain_text(markup + text, NO_NAMESPACES)
