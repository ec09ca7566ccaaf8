"""An S3 server for tests: moto's, in a process of its own."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3

BUCKET = "corpus"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def upload(folder: Path, uri: str) -> None:
    """Copy the files of a folder to objects below a URI, on the server of the environment."""
    client, address = boto3.client("s3"), urlsplit(uri)
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{address.path[1:]}/{path.relative_to(folder).as_posix()}"
            client.upload_file(path, address.netloc, key)


@contextmanager
def serving_s3() -> Iterator[str]:
    """Serve while the block runs; give the endpoint."""
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("s3_server.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline()  # the server listens already
        assert port, "moto did not start"
        endpoint = f"http://127.0.0.1:{int(port)}"
        boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        ).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.kill()
        server.wait()
