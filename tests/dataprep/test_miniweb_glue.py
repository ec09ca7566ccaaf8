"""The miniature web's GLUE files, read as plain TSV; labels are found again from the words."""

import re
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataprep.miniweb.corpora import TASK_TRUTH, WebSize, build
from tests.dataprep.captions_read import INVERSE, NUMBERS, Facts, facts_of

STS_B = ["index", "genre", "filename", "year", "old_index", "source1", "source2"]
STS_B += ["sentence1", "sentence2", "score"]
MRPC = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
HEADERS = {
    "CoLA": (None, ["index", "sentence"]),
    "SST-2": (["sentence", "label"], ["index", "sentence"]),
    "MRPC": (MRPC, ["index", *MRPC[1:]]),
    "RTE": (["index", "sentence1", "sentence2", "label"], ["index", "sentence1", "sentence2"]),
    "STS-B": (STS_B, STS_B[:-1]),
}
SENTENCES = {
    "CoLA": (["sentence"], "label"),
    "SST-2": (["sentence"], "label"),
    "MRPC": (["#1 String", "#2 String"], "Quality"),
    "RTE": (["sentence1", "sentence2"], "label"),
    "STS-B": (["sentence1", "sentence2"], "score"),
}
COLA = ["source", "label", "mark", "sentence"]


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A web with GLUE."""
    folder = tmp_path_factory.mktemp("glue") / "miniweb"
    build(folder, WebSize(7, 1, 1, 1, 1, 1, num_glue=800))
    return folder


def truth(web: Path, task: str) -> list[dict]:
    rows = pq.read_table(web / TASK_TRUTH).to_pylist()
    return [row for row in rows if row["task"] == f"glue/{task}"]


def table(web: Path, task: str, split: str) -> list[dict[str, str]]:
    header, test_header = HEADERS[task]
    lines = (web / f"glue_data/{task}/{split}.tsv").read_text().removesuffix("\n").split("\n")
    rows = [line.split("\t") for line in lines]
    expected = test_header if split == "test" else header
    if expected is None:
        return [dict(zip(COLA, row, strict=True)) for row in rows]
    assert rows[0] == expected
    return [dict(zip(expected, row, strict=True)) for row in rows[1:]]


@pytest.mark.parametrize("task", HEADERS)
def test_the_columns_are_those_of_the_published_files(web, task):
    rows = {(row["split"], row["example_id"]): row for row in truth(web, task)}
    columns, label = SENTENCES[task]
    for split in ("train", "dev", "test"):
        for number, cells in enumerate(table(web, task, split)):
            row = rows.pop((split, str(number)))
            assert cells.get("index", str(number)) == str(number)
            texts = [cells[column].removesuffix(" ") for column in columns]
            assert row["texts"] == [text for text in texts if text]
            assert (row["outcome"] == "empty_text") == ("" in texts)
            if split != "test":
                assert cells[label] == row["label"]
                assert (row["outcome"] == "no_labels") == (row["label"] == "")
            if task == "CoLA" and split != "test":
                assert cells["mark"] == ("*" if row["label"] == "0" else "")
    assert not rows
    found = Counter(row["outcome"] for row in truth(web, task))
    assert found.keys() == {"ok", "empty_text", "no_labels"}
    quoted = [row for row in truth(web, task) if any(t.startswith('"') for t in row["texts"])]
    assert 0 < len(quoted) < 30


def acceptable(text: str) -> str:
    return str(int(facts_of(text) is not None))


def sentiment(text: str) -> str:
    """Whether the judgments praise; what stands before "but" does not count."""
    found = re.findall(r"(not )?\b(fine|good|nice|bad|poor|ugly)\b", text.split(" but ")[-1])
    (praises,) = {(word in ("fine", "good", "nice")) != bool(negation) for negation, word in found}
    return str(int(praises))


def num_shared(first: Facts, second: Facts) -> int:
    pairs = zip(first.shapes[0], second.shapes[0], strict=True)
    return sum(a == b for a, b in pairs) + (first.background == second.background)


def paraphrase(first: str, second: str) -> str:
    assert first != second
    return str(int(facts_of(first) == facts_of(second)))


def similarity(first: str, second: str) -> str:
    return f"{5 * num_shared(facts_of(first), facts_of(second)) / 6:.3f}"


def entailment(premise: str, hypothesis: str) -> str:
    facts = facts_of(premise)
    shapes = {group.shape: group for group in facts.shapes}
    if found := re.fullmatch(r"The background is (\w+)\.", hypothesis):
        holds = found[1] == facts.background
    elif found := re.fullmatch(r"There (?:is|are) (a|one|two|three|four) (.*?)\.", hypothesis):
        group = shapes.get(re.sub(r"(?<=cross)es$|s$(?<!cross)", "", found[2]))
        number = {"one": 1, **NUMBERS}[found[1]]
        holds = group is not None and (found[1] == "a" or group.count == number)
    else:
        found = re.fullmatch(
            r"The (\w+) (?:is|are) (?:(left of|right of|above|below) the (\w+)|(\w+))\.", hypothesis
        )
        singular = {f"{s}{'es' if s == 'cross' else 's'}": s for s in shapes} | {
            s: s for s in shapes
        }
        about = shapes[singular[found[1]]]
        if found[2]:
            relation = facts.relation
            holds = found[2] == (relation if about == facts.shapes[0] else INVERSE[relation])
        else:
            holds = found[4] in about
    return "entailment" if holds else "not_entailment"


@pytest.mark.parametrize(
    ("task", "restated"),
    [
        ("CoLA", acceptable),
        ("SST-2", sentiment),
        ("MRPC", paraphrase),
        ("RTE", entailment),
        ("STS-B", similarity),
    ],
)
def test_the_label_is_decided_by_the_words(web, task, restated):
    labels = defaultdict(Counter)
    for row in truth(web, task):
        if row["outcome"] == "ok":
            assert restated(*row["texts"]) == row["label"], row
            labels[row["split"]][row["label"]] += 1
    for split in ("train", "dev", "test"):
        assert len(labels[split]) == (7 if task == "STS-B" else 2)
        assert max(labels[split].values()) < 0.8 * labels[split].total()
