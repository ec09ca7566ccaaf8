"""Published facts about sources, compared with counts."""

import hashlib

import pytest

from dataprep.sources.published import PUBLISHED, compare, file_md5, nearest_release, rate_words


@pytest.mark.parametrize(
    ("form", "found", "words", "agrees"),
    [
        ("cc3m", {"rows": 3_318_333}, "3,318,333 rows, as published (train)", True),
        ("cc3m", {"rows": 3_000_000}, "3,000,000 rows, published: 3,318,333 (train)", False),
        ("cc3m", {"rows": 15_840}, "15,840 rows, as published (validation)", True),
        (
            "cc3m",
            {"rows": 400},
            "400 rows, published: 3,318,333 (train), 15,840 (validation)",
            False,
        ),
        ("sbu_json", {"rows": 1_000_000}, "1,000,000 rows, as published (all)", True),
        ("imagenet21k", {"synsets": 19_167}, "19,167 synsets, as published (winter21)", True),
        (
            "sbu",
            {"md5": "9aec147b3488753cf758b4d493422285"},
            "MD5 9aec147b3488753cf758b4d493422285, as published (SBUCaptionedPhotoDataset.tar.gz)",
            True,
        ),
        (
            "sbu",
            {"md5": "0"},
            "MD5 0, differs from the published one of SBUCaptionedPhotoDataset.tar.gz",
            False,
        ),
    ],
)
def test_a_finding_names_the_count_and_the_published_one(form, found, words, agrees):
    (finding,) = compare(form, **found)
    assert (finding.text, finding.agrees) == (words, agrees)


def test_an_archive_is_compared_with_the_release_of_its_synsets():
    rows, synsets = compare("imagenet21k", rows=14_190_000, synsets=19_167)
    assert rows.text == "14,190,000 rows, published: 13,151,276 (winter21)"
    assert synsets.agrees


def test_a_count_without_a_published_one_gives_no_finding():
    assert compare("csv", rows=5, md5="0") == compare("no such format", rows=5) == []
    assert nearest_release("csv", rows=5) is None
    assert compare("cc3m") == compare("cc3m", md5="0") == []


def test_the_table_holds_valid_rates_and_checksums():
    for known in PUBLISHED.values():
        assert all(0 < rate.lowest <= rate.highest <= 1 for rate in known.rates)
        assert all(release.rows > 0 and release.seen_in for release in known.releases)
        assert all(len(digest) == 32 for digest in known.md5)
    words = [rate_words(rate) for rate in (*PUBLISHED["cc12m"].rates, *PUBLISHED["csv"].rates)]
    assert words[2] == "62.3%" and words[-1] == "50-60%"


def test_file_md5_is_the_hexadecimal_md5(tmp_path):
    (tmp_path / "list").write_bytes(b"a\tb\n")
    assert file_md5(tmp_path / "list") == hashlib.md5(b"a\tb\n").hexdigest()
