"""CC12M's hash list: the digest of each image when the list was made."""

import hashlib

from hypothesis import assume, given
from hypothesis import strategies as st

from dataprep.sources.compression import compression_of
from dataprep.sources.hash_list import DIGESTS_FILE, KEYS_FILE, HashTable, make_table
from tests.dataprep.test_sources import refused


def table(folder, data: bytes) -> tuple[HashTable, tuple[int, int]]:
    path = folder / "hashes.tsv"
    path.write_bytes(data)
    counts = make_table(path, folder)
    return HashTable(folder / KEYS_FILE, folder / DIGESTS_FILE), counts


def line(url: str, content: bytes) -> bytes:
    digests = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    return "\t".join([url, *digests]).encode() + b"\n"


def test_each_url_has_its_digest_in_any_order(tmp_path):
    urls = [f"http://x.org/{i * 37 % 100}.jpg" for i in range(100)]
    data = b"".join(line(url, url.encode()) for url in urls)
    hashes, counts = table(tmp_path, data + b"no digest\n\tabc\nhttp://x.org/y\tzz\tzz\n")
    assert counts == (100, 3)
    expected = [hashlib.sha256(url.encode()).hexdigest() for url in reversed(urls)]
    assert hashes.lookup(urls[::-1]) == expected
    assert hashes.lookup(["http://x.org/y", "http://x.org/5.jpg "]) == [None, None]


@given(data=st.binary(max_size=300))
def test_no_bytes_crash_the_reader_and_every_line_is_counted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hashes")
    (folder / "list").write_bytes(data)
    assume(compression_of(folder / "list") is None and not refused(folder / "list"))
    _, (good, bad) = table(folder, data)
    lines = data.split(b"\n")
    assert good + bad == len(lines) - (lines[-1] == b"")


def test_an_empty_list_has_no_digests(tmp_path):
    assert table(tmp_path, b"")[0].lookup(["http://x.org/1.jpg"]) == [None]
