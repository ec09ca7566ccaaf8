"""The server of the miniature web says nothing when a client goes away."""

import socket
import time

from dataprep.miniweb.server import serving


def test_a_client_that_closes_a_slow_answer_leaves_no_traceback(tmp_path, capfd):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"x" * 1000)
    with serving(tmp_path) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET /drip/a.jpg HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(64).startswith(b"HTTP/1.1 200")
        time.sleep(1)  # of several single bytes
    assert capfd.readouterr().err == ""
