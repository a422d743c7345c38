"""Says what h11, an independent HTTP/1.1 parser, makes of requests.

Reads lines of hexadecimal bytes from standard input: what a client sends on one connection. Answers
each with a line: `taken` and the first request's method, target, body, header fields and leftover
bytes, each in hexadecimal; or `refused`; or `incomplete`.
"""

import sys

import h11


def judge(data):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024)
    request, body = None, b""
    # h11 does not ignore an empty line before a request.
    data = data[2:] if data.startswith(b"\r\n") else data
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return "incomplete"
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
    except h11.RemoteProtocolError:
        return "refused"
    fields = b"\n".join(name + b":" + value for name, value in request.headers)
    parts = [request.method, request.target, body, fields, connection.trailing_data[0]]
    return " ".join(["taken"] + ["-" + part.hex() for part in parts])


for line in sys.stdin:
    print(judge(bytes.fromhex(line)), flush=True)
