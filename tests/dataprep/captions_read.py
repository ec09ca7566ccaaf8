"""Reads captions of the miniature web back into facts, by a regular expression of its own."""

import re
from typing import NamedTuple

NUMBERS = {"a": 1, "two": 2, "three": 3, "four": 4}
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
GROUP = (
    r"(?P<count{0}>a|two|three|four) (?P<size{0}>small|large) "
    r"(?P<color{0}>red|green|blue|yellow|purple|orange|pink|brown) "
    r"((?P<texture{0}>striped|dotted) )?"
    r"(?P<shape{0}>circle|square|triangle|star|ring|cross|diamond|hexagon)(?P<many{0}>s|es)?"
)
OPENING = r"((a picture|a photo|an illustration) of |a simple drawing showing |clipart with )?"
BACK = r"on a (?P<{0}>white|black|gray|beige) background"
CAPTION = re.compile(
    rf"({BACK.format('before')} there (?P<be>is|are) |{OPENING}){GROUP.format(1)}"
    rf"( (?P<relation>left of|right of|above|below) {GROUP.format(2)})?"
    rf"(,? {BACK.format('after')})?\.?"
)


class Shapes(NamedTuple):
    """Equal shapes; a texture that is not told is None."""

    count: int
    size: str
    color: str
    texture: str | None
    shape: str


class Facts(NamedTuple):
    """What a caption tells: the relation is that of the first shapes to the second."""

    background: str
    shapes: tuple[Shapes, ...]
    relation: str | None

    def canonical(self) -> "Facts":
        """The same for "a left of b" and "b right of a"."""
        if self.relation is None:
            return self
        return min(self, Facts(self.background, self.shapes[::-1], INVERSE[self.relation]))


def facts_of(caption: str) -> Facts | None:
    """The facts of a caption; None if it is not well formed."""
    text = caption.lstrip('"')
    found = CAPTION.fullmatch(text[0].lower() + text[1:]) if text else None
    if found is None or (found["before"] is None) == (found["after"] is None):
        return None
    shapes = []
    for place in ("1", "2") if found["relation"] else ("1",):
        count = NUMBERS[found["count" + place]]
        ending = None if count == 1 else "es" if found["shape" + place] == "cross" else "s"
        if found["many" + place] != ending:
            return None
        names = ("size", "color", "texture", "shape")
        shapes.append(Shapes(count, *(found[name + place] for name in names)))
    if found["be"] and (found["be"] == "is") != (shapes[0].count == 1):
        return None
    return Facts(found["before"] or found["after"], tuple(shapes), found["relation"])
