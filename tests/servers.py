"""A web server and an S3-compatible object store on this machine, with zarrs in them."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

BUCKET = "volumes"
KEY = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps what was asked for; "forbidden" and "broken" in a path are answered so."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""

    def send_head(self):
        self.server.asked.append(self.path)
        for word, status in (("forbidden", HTTPStatus.FORBIDDEN), ("broken", HTTPStatus.INTERNAL_SERVER_ERROR)):
            if word in self.path:
                self.send_error(status)
                return None
        return super().send_head()


@contextmanager
def web_server(folder: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve a folder over http on loopback; `asked` of the server lists the paths of all requests."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.asked = []
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def object_store(folder: Path, public: str) -> Iterator[str]:
    """An S3-compatible store on loopback, with all files of a folder in one bucket; gives its address.

    What lies in the folder `public` may be read without a key.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        address = f"http://127.0.0.1:{port}"
        client = boto3.client("s3", endpoint_url=address, **KEY)
        client.create_bucket(Bucket=BUCKET)
        for file in folder.rglob("*"):
            if file.is_file():
                key = file.relative_to(folder)
                acl = "public-read" if public in key.parts else "private"
                client.put_object(Bucket=BUCKET, Key=key.as_posix(), Body=file.read_bytes(), ACL=acl)
        client.close()
        yield address
    finally:
        server.stop()
