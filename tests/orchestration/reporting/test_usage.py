"""Usage: a damaged sum is named, and stops no stage. What plans make of it: test_estimates.py."""

import logging

import pytest

from orchestration.errors import ManifestError
from orchestration.reporting.progress import HEARTBEAT, read_heartbeat, write_heartbeat
from orchestration.reporting.usage import USAGE, Usage, add_usage, read_usage
from orchestration.storage.store import Store

DAMAGED = [b"", b"[]", b"null", b'{"seconds": "long"}', b"\xff\xfe\x00", b'{"seconds": 1']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_sum_is_named_and_replaced_by_the_next_attempt(tmp_path, content, caplog):
    folder = Store(tmp_path)
    folder.write_bytes(USAGE, content)
    with pytest.raises(
        ManifestError, match=r"usage\.json is damaged \(.*remove this file"
    ) as error:
        read_usage(folder)
    assert "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        assert add_usage(folder, Usage(seconds=3.0)).seconds == 3.0
    assert "earlier attempts is lost" in caplog.text
    assert add_usage(folder, Usage(seconds=4.0)).seconds == read_usage(folder).seconds == 7.0


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_heartbeat_is_none(tmp_path, content):
    folder = Store(tmp_path)
    folder.write_bytes(HEARTBEAT, content)
    assert read_heartbeat(folder) is None
    write_heartbeat(folder, 1, 2, "slices", "")
    assert read_heartbeat(folder)["done"] == 1
