"""Language variants in wikitext: ``-{zh-cn:软件;zh-tw:軟體}-`` becomes one of its texts.

The syntax is MediaWiki's (https://www.mediawiki.org/wiki/Writing_systems/Syntax). Of the variants
that a rule gives, the first in a fixed order is written, so no text is lost if the preferred one is
missing. The rest of a page stays in the script that its authors used: rules that MediaWiki applies
to other text of the page (flags ``H`` and ``A``) are not applied.
"""

import re
from typing import Final

_CHINESE: Final = ("zh-cn", "zh-hans", "zh-sg", "zh-my", "zh", "zh-hant", "zh-tw", "zh-hk", "zh-mo")
"MediaWiki's variants of Chinese: a reader of zh-cn falls back to the next three."
_OTHERS: Final = (
    *("gan-hans", "gan-hant", "gan", "wuu-hans", "wuu-hant", "wuu"),
    *("sr-ec", "sr-el", "sr-cyrl", "sr-latn", "sr", "sh-latn", "sh-cyrl", "sh"),
    *("kk-cyrl", "kk-latn", "kk-arab", "kk-kz", "kk-tr", "kk-cn", "kk"),
    *("ku-latn", "ku-arab", "ku", "uz-latn", "uz-cyrl", "uz", "tg-cyrl", "tg-latn", "tg"),
    *("crh-latn", "crh-cyrl", "crh", "iu", "ike-cans", "ike-latn", "shi", "shi-tfng", "shi-latn"),
    *("tly-cyrl", "tly", "mni", "mni-beng", "ban-x-dharma", "ban", "zgh-latn", "zgh"),
)
_ORDER: Final = (*_CHINESE, *_OTHERS)
LANGUAGES: Final = frozenset(variant.split("-")[0] for variant in _ORDER)
"Languages whose wikis have variants."
_FLAGS: Final = frozenset("ATRDHN-")
_SILENT: Final = frozenset("HDNT-")
"Flags of rules that write nothing into the text; ``A`` beside ``T`` writes it."
_TOKEN: Final = re.compile(
    r"-\{(?!\{)|\}-|<!--"
    r"|<(?P<tag>math|nowiki|pre|score|source|syntaxhighlight)\b[^<>]*(?<!/)>",
    re.IGNORECASE,
)
_VARIANT: Final = "|".join(map(re.escape, sorted(_ORDER, key=len, reverse=True)))
_SEPARATOR: Final = re.compile(rf";\s*(?=(?:[^;]*?=>\s*)?(?:{_VARIANT})\s*:|\s*$)", re.IGNORECASE)


def resolve_variants(markup: str) -> str:
    """Return wikitext in which each variant rule is replaced by its text for one variant.

    Rules may be nested. What is not closed stays as it is, and so do comments, formulas and text
    without markup.
    """
    open_rules: list[list[str]] = [[]]
    unclosed: set[str] = set()
    position = 0
    while found := _TOKEN.search(markup, position):
        open_rules[-1].append(markup[position : found.start()])
        token, position = found[0], found.end()
        if token == "-{":
            open_rules.append([])
        elif token == "}-" and len(open_rules) > 1:
            open_rules[-2].append(_text_of("".join(open_rules.pop())))
        elif token == "}-":
            open_rules[-1].append(token)
        else:
            closing = f"</{found['tag']}" if found["tag"] else "-->"
            # An opening that is never closed is looked up once, or a page of them takes minutes.
            end = -1 if closing in unclosed else markup.find(closing, position)
            if end < 0:
                unclosed.add(closing)
                end = position
            open_rules[-1].append(markup[found.start() : end])
            position = end
    open_rules[-1].append(markup[position:])
    return "-{".join("".join(parts) for parts in open_rules)


def _text_of(rule: str) -> str:
    """Return what a rule writes; inner rules have been replaced."""
    flags: set[str] = set()
    before, bar, after = rule.partition("|")
    names = {name.strip() for name in before.split(";")}
    # A bar belongs to a link or a template unless only flags stand before it.
    if bar and names <= {*_FLAGS, *_ORDER, ""}:
        flags, rule = names & _FLAGS, after
        if names & set(_ORDER) or "R" in flags:
            return rule
    if flags & _SILENT and not ("A" in flags and flags & _SILENT == {"T"}):
        return ""
    return _chosen(rule)


def _chosen(rules: str) -> str:
    """Return the text of the first variant in the fixed order; without variants, all of it."""
    texts: dict[str, str] = {}
    for choice in _SEPARATOR.split(rules):
        name, colon, text = choice.partition(":")
        if not colon:
            continue
        variant = name.rpartition("=>")[2].strip().lower()
        if variant not in _ORDER:
            return rules
        texts.setdefault(variant, text.strip())
    return next(
        (texts[variant] for variant in _ORDER if texts.get(variant)), "" if texts else rules
    )
