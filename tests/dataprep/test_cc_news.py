"""CC-News: WARC files as a crawler writes them, and the outcome of each record."""

import gzip
import io
import re
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from dataprep.sources.cc_news import language_of, read_warc
from dataprep.sources.documents import BadDocument, Document, document_tables
from orchestration import Slice
from pipelines.ingest.documents import document_slice
from pipelines.ingest.sources.cc_news import CcNews

ENGLISH = (
    "The minister said on Tuesday that the new law would be passed before the end of the year.",
    "It was not clear whether the other parties would vote for it, and many of them have doubts.",
    "“We will see what they do when the time comes,” she told reporters outside the building.",
)
GERMAN = (
    "Der Minister sagte am Dienstag, dass das neue Gesetz vor dem Ende des Jahres kommen soll.",
    "Es war nicht klar, ob die anderen Parteien dafür stimmen werden, und viele haben Zweifel.",
    "„Wir werden sehen, was sie tun, wenn es so weit ist“, sagte sie vor dem Gebäude.",
)
JAPANESE = ("大臣は火曜日に、新しい法律が年末までに可決されると述べた。" * 3,) * 3
HTML = "text/html; charset=utf-8"


def page(paragraphs: tuple[str, ...], lang: str | None = None) -> str:
    attribute = f' lang="{lang}"' if lang else ""
    article = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return (
        f"<!DOCTYPE html><html{attribute}><head><title>News</title></head><body>"
        "<nav><a href='/'>Home</a> <a href='/sport'>Sport</a></nav>"
        f"<article><h1>A new law</h1>{article}"
        "<table><tr><td>Seats in parliament</td><td>310</td></tr></table></article>"
        "<div class='comments'><p>First comment, says a reader who is angry.</p></div>"
        "<footer>All rights reserved</footer></body></html>"
    )


class Crawl:
    """Writes one WARC file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.out = io.BytesIO()
        self.writer = WARCWriter(self.out, gzip=True)
        self.writer.write_record(self.writer.create_warcinfo_record(path.name, {"robots": "yes"}))

    def add(self, body: str | bytes, status: str = "200 OK", kind: str = "response", **headers):
        """Add a record; return its id."""
        named = {"Content-Type": HTML} | {k.replace("_", "-"): v for k, v in headers.items()}
        record = self.writer.create_warc_record(
            "http://news.example/1",
            kind,
            payload=io.BytesIO(body.encode() if isinstance(body, str) else body),
            http_headers=StatusAndHeaders(status, list(named.items()), protocol="HTTP/1.1"),
        )
        self.writer.write_record(record)
        return record.rec_headers.get_header("WARC-Record-ID")[len("<urn:uuid:") : -1]

    def read(self, language: str = "en") -> list[Document | BadDocument]:
        """Write the file and read it."""
        self.path.write_bytes(self.out.getvalue())
        return list(read_warc(self.path.parent, self.path.name, language))


@pytest.fixture
def crawl(tmp_path):
    return Crawl(tmp_path / "CC-NEWS-20260101000000-00001.warc.gz")


def test_an_article_is_named_by_its_record_and_holds_only_prose(crawl):
    record_id = crawl.add(page(ENGLISH, "en-GB"))
    (document,) = crawl.read()
    assert document.name == record_id
    for paragraph in ENGLISH:
        assert paragraph in document.text
    for other in ("Sport", "parliament", "comment", "rights"):
        assert other not in document.text
    assert crawl.read() == [document]


def test_only_successful_html_responses_are_read(crawl):
    crawl.add(page(ENGLISH, "en"), status="404 Not Found")
    crawl.add(page(ENGLISH, "en"), status="301 Moved Permanently")
    crawl.add(b"%PDF", Content_Type="application/pdf")
    crawl.add('{"a": 1}', Content_Type="application/json")
    crawl.add("", status="GET / HTTP/1.1", kind="request")
    assert crawl.read() == []


@pytest.mark.parametrize(
    ("paragraphs", "lang", "header", "kept"),
    [
        (ENGLISH, "en", None, True),
        (ENGLISH, "EN_us", "de", True),
        (ENGLISH, "de", "en", False),
        (ENGLISH, None, "en-US", True),
        (ENGLISH, None, "de", False),
        (ENGLISH, None, "de, en", True),
        (ENGLISH, None, None, True),
        (GERMAN, None, None, False),
        (JAPANESE, None, None, False),
    ],
)
def test_the_language_is_declared_or_else_found_by_stop_words(
    crawl, paragraphs, lang, header, kept
):
    crawl.add(page(paragraphs, lang), **({"Content_Language": header} if header else {}))
    (found,) = crawl.read()
    assert isinstance(found, Document if kept else BadDocument)
    if not kept:
        assert found.reason == "other_language"


def test_another_language_can_be_kept(crawl):
    crawl.add(page(ENGLISH))
    crawl.add(page(GERMAN))
    crawl.add(page(JAPANESE, "ja"))
    assert [type(d) for d in crawl.read("de")] == [BadDocument, Document, BadDocument]
    assert [type(d) for d in crawl.read("ja")] == [BadDocument, BadDocument, Document]


def test_stop_words_tell_languages_apart():
    assert language_of(" ".join(ENGLISH)) == "en"
    assert language_of(" ".join(GERMAN)) == "de"
    assert language_of("Le ministre a dit que la loi serait votée avant la fin de l'année") == "fr"
    assert language_of("El ministro dijo que la nueva ley será aprobada pero no está claro") == "es"
    assert language_of(JAPANESE[0]) is None
    assert language_of("") is None


def test_pages_are_unzipped_and_decoded_by_their_headers(crawl):
    umlauts = page(("Zoë and Jürgen said that it is the end of the year for all of them.",) * 4)
    crawl.add(gzip.compress(umlauts.encode()), Content_Encoding="gzip")
    crawl.add(umlauts.encode("latin-1"), Content_Type="text/html; charset=ISO-8859-1")
    crawl.add(umlauts.encode("latin-1"), Content_Type="text/html; charset=no-such-charset")
    crawl.add(b"%x\r\n%s\r\n0\r\n\r\n" % (len(umlauts.encode()), umlauts.encode()),
              Transfer_Encoding="chunked")  # fmt: skip
    for document in crawl.read():
        assert "Zoë and Jürgen said" in document.text


QUOTED = page(("She said “yes” – it’s a €5 bill for the end of the year in Ågård.",) * 4, "en")
KOREAN = page(("똠방각하는 새로운 법이라고 말했다. " * 9,) * 4, "ko")
CHINESE = page(
    ("朱镕基说，这项新的法律将在今年年底之前通过，其他政党是否支持还不清楚。",) * 4, "zh"
)
EUC_JP = (
    page(("大臣は7に述べた。" * 9,) * 4, "ja")
    .encode("euc_jp")
    .replace(
        b"7",
        b"\xad\xa1\xa4\xc8\xad\xea\xad\xb8",  # as iconv encodes it in EUC-JP-MS
    )
)


@pytest.mark.parametrize(
    ("label", "body", "expected"),
    [
        ("iso-8859-1", QUOTED.encode("cp1252"), "“yes” – it’s a €5 bill"),
        ("us-ascii", QUOTED.encode("cp1252"), "“yes” – it’s a €5 bill"),
        ("utf-8", QUOTED.replace("bill", "b\0ll").encode().replace(b"\0", b"\xe9"), "€5 b\ufffdll"),
        ("utf8", QUOTED.encode() + "€".encode()[:2], "“yes” – it’s a €5 bill"),
        ("unicode-1-1-utf-8", QUOTED.encode(), "“yes” – it’s a €5 bill"),
        ("gb2312", CHINESE.encode("gbk"), "朱镕基说"),
        ("x-sjis", page(("大臣は①と髙橋に述べた。" * 9,) * 4, "ja").encode("cp932"), "①と髙橋"),
        ("gbk", CHINESE.replace("说", "说㐀").encode("gb18030"), "朱镕基说㐀"),
        ("gb2312", CHINESE.replace("说", "说7").encode("gbk").replace(b"7", b"\x80"), "基说€"),
        ("euc-jp", EUC_JP, "大臣は①と㈱Ⅳに"),
        ("ks_c_5601-1987", KOREAN.encode("cp949"), "똠방각하"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["header", "meta", "http-equiv"])
def test_a_labeled_page_is_decoded_as_browsers_do_and_never_guessed_at(
    crawl, label, body, expected, where
):
    declared = {
        "header": b"",
        "meta": f"<!-- <meta charset=koi8-r> --><meta charset='{label}'>".encode(),
        "http-equiv": f'<META http-equiv=x content="text/html; CHARSET={label}">'.encode(),
    }[where]
    header = f"text/html; charset={label}" if where == "header" else "text/html"
    crawl.add(body.replace(b"<head>", b"<head>" + declared), Content_Type=header)
    language = re.search(rb'lang="(..)"', body)[1].decode()
    (document,) = crawl.read(language)
    assert expected in document.text
    assert document.text.count("\ufffd") <= 4


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (QUOTED.encode() + "€".encode()[:2], "“yes” – it’s a €5 bill"),
        (QUOTED.replace("bill", "b\0ll").encode().replace(b"\0", b"\xe9"), "€5 b\ufffdll"),
        (QUOTED.encode("cp1252"), "“yes” – it’s a €5 bill"),
    ],
)
def test_a_page_without_a_label_is_guessed_at_only_if_most_of_it_is_not_utf8(crawl, body, expected):
    crawl.add(body, Content_Type="text/html")
    (document,) = crawl.read()
    assert expected in document.text


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_comes_before_every_label(crawl, mark):
    crawl.add(QUOTED.encode(mark), Content_Type="text/html; charset=koi8-r")
    (document,) = crawl.read()
    assert "“yes” – it’s a €5 bill" in document.text


def test_a_page_in_an_encoding_that_browsers_refuse_is_a_bad_document(crawl):
    for label in ("iso-2022-kr", "hz-gb-2312", "replacement"):
        crawl.add(QUOTED, Content_Type=f"text/html; charset={label}")
    crawl.add(QUOTED)
    *bad, good = crawl.read()
    assert [type(document) for document in bad] == [BadDocument] * 3
    assert isinstance(good, Document)


HTML_TYPE = b"Content-Type: text/html\r\n\r\n"
HEADS = {
    "an empty line before the head": (b"\r\nHTTP/1.1 200 OK\r\n" + HTML_TYPE, True),
    "two empty lines": (b"\n\r\nHTTP/1.1 200 OK\r\n" + HTML_TYPE, True),
    "HTTP/2": (b"HTTP/2 200\r\n" + HTML_TYPE, True),
    "lower case": (b"http/1.0 200 OK\r\n" + HTML_TYPE.swapcase(), True),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n", True),
    "no content type": (b"HTTP/1.1 200 OK\r\n\r\n", True),
    "a line without a colon": (b"HTTP/1.1 200 OK\r\nnonsense\r\n" + HTML_TYPE, True),
    "an interim response": (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n" + HTML_TYPE,
        True,
    ),
    "nothing but interim responses": (b"HTTP/1.1 100 Continue\r\n\r\n", False),
    "no head": (b"", False),
    "another protocol": (b"ICY 200 OK\r\n" + HTML_TYPE, False),
    "no status": (b"HTTP/1.1 OK\r\n" + HTML_TYPE, False),
    "bytes": (bytes(range(128, 256)), False),
    "a bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<html>\r\n", None),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_response_becomes_a_document_or_a_bad_document_whatever_its_head_is(crawl, case):
    head, is_read = HEADS[case]
    crawl.add(QUOTED)
    body = head + QUOTED.encode()
    fields = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: {len(body)}\r\n\r\n"
    crawl.out.write(gzip.compress(fields.encode() + body + b"\r\n\r\n"))
    crawl.add(QUOTED)
    first, second, third = crawl.read()
    assert isinstance(first, Document) and third.text == first.text
    if is_read is not None:
        assert isinstance(second, Document if is_read else BadDocument)
    if is_read:
        assert "“yes” – it’s a €5 bill" in second.text


def test_a_page_without_prose_is_too_short(crawl):
    crawl.add("<html lang='en'><body><nav>Home</nav></body></html>")
    crawl.add("")
    _, rejects = document_tables(crawl.read(), "news", "x", 20)
    assert rejects["reason"].to_pylist() == ["too_short"] * 2


def test_damage_ends_a_file_with_a_bad_document(crawl):
    for _ in range(3):
        crawl.add(page(ENGLISH, "en"))
    whole = crawl.out.getvalue()
    assert len(crawl.read()) == 3
    ends = [i for i in range(1, len(whole)) if whole[i : i + 3] == b"\x1f\x8b\x08"]
    flipped = bytearray(whole)
    flipped[ends[2] - 8] ^= 255  # the checksum of the second page
    unzipped = gzip.decompress(whole)
    longer = gzip.compress(unzipped.replace(b"Content-Length: ", b"Content-Length: 1", 3))
    for data, num_whole in (
        (whole[:-30], 2),
        (whole[: ends[2]] + b"garbage", 2),
        (whole[: ends[2]] + gzip.compress(b"garbage\r\n\r\n"), 2),
        (whole[: ends[2] + 11] + b"\xff" * 50, 2),  # inflating the next member fails at once
        (whole + bytes(700), 3),  # padding
        (bytes(flipped), 1),
        (longer, 0),
        (b"", 0),
        (unzipped, 0),
    ):
        num_bad = int(not data.endswith(bytes(700)))
        crawl.out = io.BytesIO(data)
        found = crawl.read()
        bad = [document for document in found if isinstance(document, BadDocument)]
        assert [document.reason for document in bad] == ["malformed_line"] * num_bad, data[-20:]
        assert len(found) - num_bad == num_whole and found[num_whole:] == bad


def test_no_flipped_byte_gives_another_text(crawl):
    for _ in range(2):
        crawl.add(page(ENGLISH, "en"))
    whole = crawl.out.getvalue()
    (text,) = {document.text for document in crawl.read()}
    for offset in range(0, len(whole), 11):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << offset % 8
        crawl.out = io.BytesIO(bytes(flipped))
        found = [document for document in crawl.read() if not isinstance(document, BadDocument)]
        assert {document.text for document in found} <= {text}, offset


def test_a_file_is_a_slice_and_every_page_is_counted(crawl, tmp_path):
    crawl.add(page(ENGLISH))
    crawl.add(page(GERMAN, "de"))
    crawl.add("<html lang='en'></html>")
    crawl.read()
    (tmp_path / "CC-NEWS-list.txt").write_text("")
    params = CcNews(format="cc_news", file=str(tmp_path))
    ranges = list(params.slices())
    assert ranges == [Slice("000000", {"names": [crawl.path.name]})]
    (output,) = document_slice(params, "news", ranges[0])
    assert output.num_rows_in == 3
    assert output.tables["data"].num_rows == 1
    reasons = output.tables["rejects"]["reason"].to_pylist()
    assert reasons == ["other_language", "too_short"]
