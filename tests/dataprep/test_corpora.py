"""Text corpora in their published formats."""

import bz2
import io
import lzma
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.sources import documents, openwebtext, wikipedia
from dataprep.sources.documents import BadDocument, Document
from dataprep.sources.folders import files_in

ARTICLE = """{{Infobox|name=Red}}
'''Red''' is a [[color]] of the [[visible spectrum|spectrum]].<ref>{{cite|x}}</ref>

== Uses ==
[[File:Red.jpg|thumb|A red [[rose]]]]
It is used for ''roses'' &amp; flags.
{| class="wikitable"
| cell
|}
[[Category:Colors]]
"""


def page(number: int, title: str, text: str, ns: int = 0, redirect: bool = False) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    to = '<redirect title="Red" />' if redirect else ""
    return f"""  <page>
    <title>{title}</title>
    <ns>{ns}</ns>
    <id>{number}</id>
    {to}
    <revision>
      <id>9</id>
      <text>{escaped}</text>
    </revision>
  </page>
"""


@pytest.fixture
def dump(tmp_path):
    """Three streams of pages behind a stream with the head, as the multistream dumps are."""
    streams = [
        page(1, "Red", ARTICLE) + page(2, "Talk:Red", "discussed", ns=1),
        page(3, "Rot", "#REDIRECT", redirect=True) + page(4, "Blue", "Blue is [[cold]]."),
        page(5, "Green", "Green is a color."),
    ]
    head = bz2.compress(b"<mediawiki>\n  <siteinfo></siteinfo>\n")
    data, index = head, ""
    for number, stream in enumerate(streams):
        end = "</mediawiki>\n" if number == 2 else ""
        index += "".join(f"{len(data)}:{i}:Title: {i}\n" for i in range(2))
        data += bz2.compress((stream + end).encode())
    (tmp_path / "dump.xml.bz2").write_bytes(data)
    (tmp_path / "index.txt.bz2").write_bytes(bz2.compress(index.encode()))
    return tmp_path / "dump.xml.bz2", tmp_path / "index.txt.bz2"


@pytest.mark.parametrize("num_streams", [1, 2, 9])
def test_a_wikipedia_dump_is_read_by_ranges_of_streams(dump, num_streams):
    ranges = wikipedia.stream_ranges(*dump, num_streams)
    assert (
        sum(stream_range.num_bytes for stream_range in ranges) + ranges[0].offset
        == dump[0].stat().st_size
    )
    found = [d for stream_range in ranges for d in wikipedia.read_streams(dump[0], stream_range)]
    assert [d.name for d in found] == ["1", "4", "5"]
    rows, _ = documents.document_tables(found, "wiki", "dump", 5)
    assert rows["text"].to_pylist() == [
        "Red is a color of the spectrum.\nUses\nIt is used for roses & flags.",
        "Blue is cold.",
        "Green is a color.",
    ]


def test_a_damaged_stream_is_one_bad_document(dump):
    data = bytearray(dump[0].read_bytes())
    (first, *_, last) = wikipedia.stream_ranges(*dump, 1)
    data[first.offset + 20] ^= 255
    dump[0].write_bytes(bytes(data))
    (bad,) = wikipedia.read_streams(dump[0], first)
    assert isinstance(bad, BadDocument)
    assert [d.name for d in wikipedia.read_streams(dump[0], last)] == ["5"]


def test_an_index_of_another_dump_is_refused(dump, tmp_path):
    short = tmp_path / "short.bz2"
    short.write_bytes(dump[0].read_bytes()[:50])
    with pytest.raises(wikipedia.DumpError, match=r"does not belong to .*short\.bz2"):
        wikipedia.stream_ranges(short, dump[1], 1)
    with pytest.raises(wikipedia.DumpError, match=r"dump\.xml\.bz2: not a multistream index"):
        wikipedia.stream_ranges(dump[0], dump[0], 1)


def inner_archive(texts: dict[str, bytes]) -> bytes:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return lzma.compress(tar.getvalue())


def test_openwebtext_is_read_archive_by_archive(tmp_path):
    texts = {f"{i}.txt": f"Text {i}\n\n\n\nends. \xff".encode("latin-1") for i in range(3)}
    (tmp_path / "urlsf_subset00-1_data.xz").write_bytes(inner_archive(texts))
    (tmp_path / "urlsf_subset00-1_data.xz.lock").write_bytes(b"")
    whole = inner_archive({"a.txt": b"whole " * 900, "b.txt": bytes(range(256)) * 900})
    (tmp_path / "urlsf_subset01-1_data.xz").write_bytes(whole[: len(whole) // 2])
    names = files_in(tmp_path, "*.xz")
    assert names == ["urlsf_subset00-1_data.xz", "urlsf_subset01-1_data.xz"]
    found = list(openwebtext.read_archive(tmp_path, names[0]))
    assert [d.text.split("\n")[0] for d in found] == ["Text 0", "Text 1", "Text 2"]
    assert isinstance(list(openwebtext.read_archive(tmp_path, names[1]))[-1], BadDocument)


def test_text_files_and_parquet(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_bytes(b"\xef\xbb\xbfA book")
    (tmp_path / "books" / "b.txt").write_bytes(b"\xff\xfe")
    first, second = documents.read_text_files(tmp_path / "books", ["a.txt", "b.txt"])
    assert first == Document("a.txt", "A book") and isinstance(second, BadDocument)
    pq.write_table(pa.table({"body": ["one", None, "three"]}), tmp_path / "p", row_group_size=2)
    found = [
        d for g in (0, 1) for d in documents.read_parquet(tmp_path / "p", g, 1 + 2 * g, "body")
    ]
    assert [type(d) for d in found] == [Document, BadDocument, Document]
    assert [d.name for d in found] == ["000000001", "000000002", "000000003"]
