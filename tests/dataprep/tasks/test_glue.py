"""GLUE's TSVs: the columns of each corpus, quotes that do not quote, files without labels."""

import csv

import pandas
import pytest

from dataprep.sources.lines import ListError
from dataprep.tasks.glue import read_glue

FILES = {
    "cola": (
        "train.tsv",
        "gj04\t1\t\tOur friends won't buy this \"analysis\", let alone.\n"
        "gj04\t0\t*\tThe \"more we study.\n",
        [("Our friends won't buy this \"analysis\", let alone.",), ('The "more we study.',)],
        ["1", "0"],
    ),
    "cola test": (
        "test.tsv",
        "index\tsentence\n0\tBill whistled past the house.\n7\tThe car honked.\n",
        [("Bill whistled past the house.",), ("The car honked.",)],
        None,
    ),
    "sst2": (
        "train.tsv",
        "sentence\tlabel\nhide new secretions from the parental units \t0\nthat loves\t1\n",
        [("hide new secretions from the parental units",), ("that loves",)],
        ["0", "1"],
    ),
    "mrpc": (
        "train.tsv",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
        "1\t702876\t702977\tAmrozi accused \" the witness \" .\tHe called him \"liar .\r\n",
        [('Amrozi accused " the witness " .', 'He called him "liar .')],
        ["1"],
    ),
    "mrpc test": (
        "test.tsv",
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1089874\t1089925\tPCCW 's chief\tMike\n",
        [("PCCW 's chief", "Mike")],
        None,
    ),
    "qqp": (
        "dev.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "201359\t303345\t303346\tWhy are \"hispanics?\tWhy do?\t0\n",
        [('Why are "hispanics?', "Why do?")],
        ["0"],
    ),
    "stsb": (
        "dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tmain-captions\tMSRvid\t2012test\t0000\tnone\tnone\tA man.\tA person.\t5.000\n"
        "1\tmain-captions\tMSRvid\t2012test\t0002\tnone\tnone\tA child.\tA kid.\t4.750\n",
        [("A man.", "A person."), ("A child.", "A kid.")],
        ["5.000", "4.750"],
    ),
    "mnli": (
        "dev_matched.tsv",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\t"
        "label5\tgold_label\n"
        "0\t63735\t63735n\tslate\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tThe new rights.\tEveryone.\t"
        "neutral\tentailment\tneutral\tneutral\tneutral\tneutral\n",
        [("The new rights.", "Everyone.")],
        ["neutral"],
    ),
    "mnli test": (
        "test_mismatched.tsv",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\n"
        "0\t31493\t31493\ttravel\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tHill.\tTown.\n",
        [("Hill.", "Town.")],
        None,
    ),
    "qnli": (
        "train.tsv",
        "index\tquestion\tsentence\tlabel\n0\tWhen did it end?\tIn 1990.\tnot_entailment\n",
        [("When did it end?", "In 1990.")],
        ["not_entailment"],
    ),
    "rte": (
        "train.tsv",
        "index\tsentence1\tsentence2\tlabel\n5\tNo Weapons.\tWeapons.\tnot_entailment\n",
        [("No Weapons.", "Weapons.")],
        ["not_entailment"],
    ),
}  # fmt: skip


@pytest.fixture(params=FILES)
def case(request, tmp_path):
    name, content, texts, labels = FILES[request.param]
    path = tmp_path / name
    path.write_bytes(content.encode())
    return request.param.split()[0], path, texts, labels


def test_each_corpus_is_read_by_its_columns(case):
    corpus, path, texts, labels = case
    found = list(read_glue(path, corpus))
    assert [e.texts for e in found] == texts and not any(e.reason for e in found)
    assert [list(e.labels) for e in found] == (
        [[x] for x in labels] if labels else [[]] * len(found)
    )


def test_the_rows_are_those_that_pandas_reads(case):
    corpus, path, *_ = case
    named = {} if path.name != "train.tsv" or corpus != "cola" else {"header": None}
    frame = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, **named)
    columns = [3] if named else [c for c in frame if c.endswith(("String", "sentence")) or
                                 c.rstrip("12") in ("question", "sentence")]  # fmt: skip
    if corpus == "qnli":
        columns = ["question", "sentence"]
    rows = [tuple(str(v).strip() for v in row) for row in frame[columns].itertuples(index=False)]
    assert [e.texts for e in read_glue(path, corpus)] == rows


def test_a_test_file_is_numbered_as_its_submission_is_and_others_from_zero(tmp_path):
    def ids(name):
        file, content, _, _ = FILES[name]
        (tmp_path / file).write_text(content)
        return [e.id for e in read_glue(tmp_path / file, name.split()[0])]

    assert ids("cola test") == ["0", "7"]
    assert ids("cola") == ["0", "1"] and ids("stsb") == ["0", "1"] and ids("rte") == ["0"]


@pytest.mark.parametrize(
    ("corpus", "line", "reason"),
    [
        ("cola", "gj04\t1\tno fourth", "malformed_entry"),
        ("cola", "gj04\t2\t\tA sentence.", "unknown_label"),
        ("cola", "gj04\t1\t\t ", "empty_text"),
        ("sst2", "one field", "malformed_entry"),
        ("sst2", "a\tb\t0", "malformed_entry"),
        ("sst2", "a good one\t", "no_labels"),
        ("sst2", "a good one\t2", "unknown_label"),
        ("stsb", "0\ta\tb\tc\td\te\tf\tA.\tB.\t5.1", "unknown_label"),
        ("stsb", "0\ta\tb\tc\td\te\tf\tA.\tB.\tnan", "unknown_label"),
        ("rte", "0\tA.\t\tentailment", "empty_text"),
        ("rte", "0\tA.\tB.\tneutral", "unknown_label"),
        ("rte", "", "malformed_entry"),
    ],
)
def test_a_bad_line_is_one_reject_beside_good_ones(tmp_path, corpus, line, reason):
    name, content, texts, _ = FILES[corpus]
    (tmp_path / name).write_text(f"{content}{line}\n")
    *good, last = read_glue(tmp_path / name, corpus)
    assert [e.texts for e in good] == texts and not any(e.reason for e in good)
    assert last.reason == reason and f"{name}:" in last.detail


@pytest.mark.parametrize("corpus", ["cola", "mrpc", "mnli", "qnli"])
def test_a_file_of_another_corpus_is_refused_by_its_name(tmp_path, corpus):
    path = tmp_path / "train.tsv"
    path.write_text(FILES["qqp"][1])
    with pytest.raises(ListError, match=rf"train\.tsv: no TSV file of {corpus}, .*has id, qid1"):
        list(read_glue(path, corpus))
