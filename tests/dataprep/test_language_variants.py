"""Variant rules of Chinese and other wikis: the examples of MediaWiki's manual and XOWA's tests.

The manual is https://www.mediawiki.org/wiki/Writing_systems/Syntax, where lower case stands for
simplified and upper case for traditional Chinese; XOWA is an offline reader of Wikipedia dumps
(github.com/gnosygnu/xowa, ``Vnt_convert_lang__html__tst`` and ``__syntax__tst``), read as zh-cn.
"""

import bz2
import html
import time

import pytest

from dataprep.sources import wikipedia
from dataprep.sources.language_variants import resolve_variants

MANUAL = [
    ("-{zh-hans:computer; zh-hant:ELECTRONICBRAIN;}-", "computer"),
    ("-{H|HUGEBLOCK=>zh-cn:macro;}-x", "x"),
    ("-{SimpTrad}-", "SimpTrad"),
    (
        "一台-{zh-hans:电脑; zh-hant:電腦}-和-{A|zh-cn:软件;zh-tw:軟體}-。-{T|zh-cn:题}-",
        "一台电脑和软件。",
    ),
    ("-{原文}--{R|x;y}--{H|zh-cn:甲;zh-tw:乙}-", "原文x;y"),
    ("-{R|SimpTrad}-", "SimpTrad"),
    ("HAN-{}-GUK", "HANGUK"),
    ("-{zh;zh-hans;zh-hant|HANGUK}-", "HANGUK"),
    ("-{H|zh-cn:blog; zh-hk:WEBJOURNAL; zh-tw:WEBLOG;}-x", "x"),
    ("-{A|zh-cn:blog; zh-hk:WEBJOURNAL; zh-tw:WEBLOG;}-", "blog"),
    ("-{T|zh-cn:blog; zh-hk:WEBJOURNAL; zh-tw:WEBLOG;}-x", "x"),
    ("-{-|zh-cn:blog; zh-tw:WEBLOG;}-x", "x"),
    ("-{N|zh-cn}-x", "x"),
]
XOWA = [
    ("a-{b-{c-{d}-e}-f}-g", "abcdefg"),
    ("a-{b-{c}-d-{e}-f}-g", "abcdefg"),
    ("a-{b-{c", "a-{b-{c"),
    ("a-{b-{c}-", "a-{bc"),
    ("-{zh-cn:a-{b}-c; zh-tw:d-{e}-f; }-", "abc"),
    ("a-{bc", "a-{bc"),
    ("<span style=''>-{zh-hans:C;zh-hant:D;}-</span>", "<span style=''>C</span>"),
    ("-{zh-hans:<span style='border:solid;color:blue;'>x</span>;zh-hant:b}-",
     "<span style='border:solid;color:blue;'>x</span>"),
]  # fmt: skip
OURS = [
    ("-{zh-tw:計程車;zh-hk:的士}-", "計程車"),  # no variant of the preferred script
    ("-{zh-hk:的士;zh-cn:出租车;zh-tw:計程車}-", "出租车"),
    ("-{zh-cn:;zh-tw:計程車}-", "計程車"),
    ("-{sr-el:latinica;sr-ec:ћирилица}-", "ћирилица"),
    ("-{A;T|zh-cn:甲;zh-tw:乙}-", "甲"),
    ("-{ZH-CN:甲；zh-tw:乙}-", "甲；zh-tw:乙"),  # a full-width semicolon separates nothing
    ("-{[[电脑|计算机]]}-", "[[电脑|计算机]]"),
    ("-{zh-hans:{{lang|en|a;b}};zh-hant:c}-", "{{lang|en|a;b}}"),
    ("-{note: see below}-", "note: see below"),
    ("3-{{frac|1|2}}-4", "3-{{frac|1|2}}-4"),
    ("<nowiki>-{a}-</nowiki>-{b}-", "<nowiki>-{a}-</nowiki>b"),
    ("<math>e^{-{x}}-</math>-{b}-<!-- -{c -->-{d}-", "<math>e^{-{x}}-</math>b<!-- -{c -->d"),
    ("<nowiki/>-{a}-}-", "<nowiki/>a}-"),
]


@pytest.mark.parametrize(("markup", "expected"), [*MANUAL, *XOWA, *OURS])
def test_a_rule_becomes_the_text_of_one_variant(markup, expected):
    assert resolve_variants(markup) == expected


@pytest.mark.parametrize("opening", ["-{", "<nowiki>", "<!--", "-{zh-cn:", "-{a;", ";a=>", "}-"])
def test_unclosed_rules_take_a_time_that_grows_with_the_page_alone(opening):
    began = time.monotonic()
    resolve_variants(opening * 200_000)
    resolve_variants("-{" + opening.replace("-{", "") * 200_000 + "}-")
    assert time.monotonic() - began < 60  # a second; the square of it would take hours


@pytest.mark.parametrize(
    ("language", "expected"),
    [("zh", "计算机是机器。"), ("en", "-{zh-cn:计算机;zh-tw:電腦}-是机器。")],
)
def test_rules_are_resolved_in_the_dumps_of_languages_that_have_variants(
    tmp_path, language, expected
):
    head = bz2.compress(f'<mediawiki xml:lang="{language}">\n<siteinfo></siteinfo>'.encode())
    markup = html.escape("-{H|zh-cn:软件;zh-tw:軟體}--{zh-cn:计算机;zh-tw:電腦}-是机器。")
    if language == "en":
        markup = html.escape("-{zh-cn:计算机;zh-tw:電腦}-是机器。")
    page = f"<page><ns>0</ns><id>7</id><revision><text>{markup}</text></revision></page>"
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(head + bz2.compress(page.encode()))
    rest = path.stat().st_size - len(head)
    (article,) = wikipedia.read_streams(path, wikipedia.StreamRange(len(head), rest))
    assert article.text == expected
