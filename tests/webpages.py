"""Pages and records of archives, made from text."""

from __future__ import annotations


def page(text: str) -> bytes:
    """An HTML page whose paragraphs are the lines of a text."""
    body = "".join(f"<p>{p}</p>" for p in text.split("\n"))
    return f"<html><head><title>t</title></head><body><article>{body}</article></body></html>".encode()


def response(url: str, html: bytes) -> bytes:
    """A WARC record: the response of a server that sent a page."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-03-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    ).encode()
    return head + http + b"\r\n\r\n"
