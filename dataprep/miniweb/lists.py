"""Lists of captions and URLs in the formats of the real sources.

    cc3m.tsv    caption TAB url, no header (Conceptual Captions 3M)
    cc12m.tsv   url TAB caption, no header (Conceptual 12M)
    SBU_captioned_photo_dataset_urls.txt, SBU_captioned_photo_dataset_captions.txt
                two parallel text files
    sbu-captions-all.json
                one object of parallel lists: image_urls, user_ids, captions

CC3M's captions tell of one group of shapes, the others' of one or two. SBU's two formats list
different images here, so that a recipe can read both.
"""

import json
from pathlib import Path
from typing import Final

from dataprep.miniweb.drawn_images import DrawnImage, ImageRenderer, image_size, numbered_rng
from dataprep.miniweb.grammar import caption, random_scene, tokenized
from dataprep.miniweb.server_behaviors import DELAYS, MISBEHAVIORS, PLACEHOLDER, url_of
from dataprep.miniweb.truth import Row, Written

SBU_URLS: Final = "SBU_captioned_photo_dataset_urls.txt"
SBU_CAPTIONS: Final = "SBU_captioned_photo_dataset_captions.txt"
SBU_JSON: Final = "sbu-captions-all.json"
_LONGEST_SIDE: Final = 1200
_LONGEST_SBU_SIDE: Final = 500
"Flickr's medium size."
_SBU_ANSWERS: Final = ("forbidden", "missing", "forbidden", "gone")
_SBU_FAULTS: Final = ("malformed_line", "empty_caption", "bad_url")


def write_placeholder(folder: Path, seed: int, renderer: ImageRenderer) -> None:
    """Write the placeholder that sites send instead of a removed image."""
    image = DrawnImage(random_scene(numbered_rng(seed, 9)), 300, 300, (0,))
    renderer.render_files([(folder / f"images/{PLACEHOLDER}.jpg", image)])


def write_conceptual(
    folder: Path, source: str, number: int, seed: int, renderer: ImageRenderer
) -> Written:
    """Write the list of ``source``, ``cc3m`` or ``cc12m``, and its images."""
    is_first = source == "cc3m"
    written, lines, files = Written(), [], []
    for i in range(number):
        rng = numbered_rng(seed, 1 if is_first else 2, i)
        scene = random_scene(rng, 1 if is_first else None)
        width, height = image_size(rng, _LONGEST_SIDE)
        text = caption(scene, rng)
        behavior, outcome = _conceptual_answer(i)
        url = url_of(behavior, f"{source}_{i:06d}.jpg", i)
        image = DrawnImage(scene, width, height, (seed, int(is_first), i))
        if behavior in ("ok", "half-image", "truncated", *DELAYS):
            files.append((folder / f"images/{source}_{i:06d}.jpg", image))
        text = tokenized(text) if is_first else f"{text[0].upper()}{text[1:]}"
        line = f"{text}\t{url}" if is_first else f"{url}\t{text}"
        if i % 97 == 60:
            line, outcome = line.replace("\t", " "), "malformed_line"
        lines.append(line)
        name = f"{source}/{i + 1:09d}"
        placeholder = behavior == PLACEHOLDER and outcome == "ok"
        written.rows.append(Row(source, name, outcome, text, width, height, placeholder))
        if behavior == outcome == "ok":
            written.originals[name] = image
    renderer.render_files(files)
    (folder / f"{source}.tsv").write_text("\n".join(lines) + "\n")
    return written


def _conceptual_answer(number: int) -> tuple[str, str]:
    """Return the server's behavior for a row and the row's expected outcome."""
    if number % 9 == 4:  # every misbehavior occurs, evenly spread
        return list(MISBEHAVIORS.items())[(number // 9) % len(MISBEHAVIORS)]
    if number % 31 == 7:
        return DELAYS[(number // 31) % len(DELAYS)], "ok"
    return (PLACEHOLDER if number % 53 == 11 else "ok"), "ok"


def write_sbu(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[Row]:
    """Write SBU as two files of lines; a malformed line is not UTF-8."""
    rows, urls, captions = _sbu(folder, "sbu", number, (seed, 5), renderer)
    (folder / SBU_URLS).write_text("".join(f"{url}\n" for url in urls))
    lines = [
        text.encode() + (b" \xff" if row.outcome == "malformed_line" else b"") + b"\n"
        for row, text in zip(rows, captions, strict=True)
    ]
    (folder / SBU_CAPTIONS).write_bytes(b"".join(lines))
    return rows


def write_sbu_json(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[Row]:
    """Write SBU as one JSON object; the caption of a malformed entry is null."""
    rows, urls, captions = _sbu(folder, "sbu_json", number, (seed, 6), renderer)
    lists = {
        "image_urls": urls,
        "user_ids": [f"{10_000_000 + i}@N00" for i in range(number)],
        "captions": [
            None if row.outcome == "malformed_line" else text
            for row, text in zip(rows, captions, strict=True)
        ],
    }
    (folder / SBU_JSON).write_text(json.dumps(lists))
    return rows


def _sbu(
    folder: Path, source: str, number: int, key: tuple[int, ...], renderer: ImageRenderer
) -> tuple[list[Row], list[str], list[str]]:
    """Draw the images of one format; return its rows, URLs and captions."""
    rows, urls, captions, files = list[Row](), [], [], []
    for i in range(number):
        rng = numbered_rng(*key, i)
        scene = random_scene(rng)
        width, height = image_size(rng, _LONGEST_SBU_SIDE)
        text = f"{caption(scene, rng).capitalize()}."
        behavior, outcome = "ok", "ok"
        if i % 10 == 3:
            behavior = _SBU_ANSWERS[(i // 10) % len(_SBU_ANSWERS)]
            outcome = MISBEHAVIORS[behavior]
        elif i % 10 == 6:
            outcome = _SBU_FAULTS[(i // 10) % len(_SBU_FAULTS)]
        name = f"{source}_{i:06d}.jpg"
        urls.append(url_of(behavior, name, i) if outcome != "bad_url" else f"www.test/{name}")
        captions.append(" " if outcome == "empty_caption" else text)
        rows.append(Row(source, f"{source}/{i + 1:09d}", outcome, text, width, height))
        if outcome == "ok":
            files.append((folder / "images" / name, DrawnImage(scene, width, height, (*key, i))))
    renderer.render_files(files)
    return rows, urls, captions
