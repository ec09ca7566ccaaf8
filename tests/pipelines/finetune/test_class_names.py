"""Texts of classes: WordNet's names as timm has them, a file's, and the labels themselves."""

import pkgutil
from collections import Counter

import pytest

from pipelines.finetune.class_names import class_texts
from tests.pipelines.finetune.examples import labelled, task_of


def info(name):
    return pkgutil.get_data("timm.data", f"_info/{name}").decode().splitlines()


@pytest.fixture(scope="module")
def lemmas():
    """WordNet's names of every synset, from timm's own table."""
    return dict(line.split("\t", 1) for line in info("imagenet_synset_to_lemma.txt"))


@pytest.mark.parametrize(
    ("synsets", "num_classes", "num_texts"),
    [("imagenet_synsets.txt", 1000, 999), ("imagenet22k_synsets.txt", 21_841, 21_238)],
)
def test_the_texts_of_imagenet_are_the_names_of_their_synsets(
    synsets, num_classes, num_texts, lemmas
):
    """Some classes have the same text: both cranes of ImageNet-1K."""
    labels = info(synsets)
    texts = class_texts(labels, None, wordnet=True)
    assert texts == [lemmas[label] for label in labels] and len(texts) == num_classes
    assert len(set(texts)) == num_texts
    if num_classes == 1000:
        assert [text for text, number in Counter(texts).items() if number > 1] == ["crane"]
        assert texts[:2] == ["tench, Tinca tinca", "goldfish, Carassius auratus"]
        assert labels == sorted(labels)  # the number of a class is its rank


def test_labels_themselves_and_those_of_a_file_are_texts(tmp_path):
    assert class_texts(["polar_bear", "cat"], None, wordnet=False) == ["polar bear", "cat"]
    path = tmp_path / "names.tsv"
    path.write_text("b\ta bird\n\na\tan animal, a beast\r\nc\tcafé\n", encoding="utf-8")
    assert class_texts(["a", "b"], str(path), wordnet=False) == ["an animal, a beast", "a bird"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tone\n", "no text for 1 of 2 classes, the first is 'b'"),
        ("a\tone\nb\n", "line 2: expected a label"),
        ("a\tone\nb\t \n", "line 2: expected a label"),
        ("a\tone\na\ttwo\n", "line 2: expected a label that stands once"),
    ],
)
def test_a_file_without_a_text_for_each_class_is_refused(tmp_path, text, message):
    path = tmp_path / "names.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        class_texts(["a", "b"], str(path), wordnet=False)
    train = {"train": labelled([["a"], ["b"]])}
    with pytest.raises(ValueError, match=message):  # before the training
        task_of("dual", class_names=str(path)).label_names(train)


def test_a_label_that_is_no_synset_is_refused():
    with pytest.raises(ValueError, match=r"wordnet_names: no text for 1 of 2 .* 'cat'"):
        class_texts(["n01440764", "cat"], None, wordnet=True)
