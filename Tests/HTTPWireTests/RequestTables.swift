/// Requests that are accepted: their bytes, and the expected method, target and body.
let goodRequests: [(text: String, method: String, target: String, body: String)] = [
    // Host may be empty: Docker Engine 20.10 sends it that way.
    ("POST /Plugin.Activate HTTP/1.1\r\nHost: \r\n\r\n", "POST", "/Plugin.Activate", ""),
    ("GET / HTTP/1.0\r\n\r\n", "GET", "/", ""),
    ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", "GET", "/", ""),
    ("\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/health", ""),
    ("GET http://a:80/x?y=1 HTTP/1.1\r\nHost: b\r\n\r\n", "GET", "/x?y=1", ""),
    ("GET HTTP://a HTTP/1.1\r\nHost: b\r\n\r\n", "GET", "/", ""),
    ("GET https://a?q HTTP/1.1\r\nHost: b\r\n\r\n", "GET", "/?q", ""),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*", ""),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "CONNECT", "a:443", ""),
    ("M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH!#$%&'*+.^_`|~", "/", ""),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\nX:\r\n\r\n", "GET", "/", ""),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\r\n\r\n", "GET", "/", ""),
    ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nab", "PUT", "/", "ab"),
    (chunked("2\r\nab\r\n0\r\n\r\n"), "POST", "/", "ab"),
    (
        chunked("1;x\r\na\r\n00a \t;n=\"q;\"\r\nbcdefghijk\r\n000\r\n\r\n"), "POST", "/",
        "abcdefghijk"
    ),
    (chunked("1\r\na\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n"), "POST", "/", "a"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , Chunked,\r\n\r\n0\r\n\r\n", "POST",
        "/", ""
    ),
]

/// Request lines that are rejected, and the status.
let badLines: [(text: String, status: Int)] = [
    ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("GET /\r\nHost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/+1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400),
    ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
]

/// Header fields that are rejected, and the status.
let badFields: [(text: String, status: Int)] = [
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\u{0}\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\u{e4}: 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
]

/// Heads that make the body's end ambiguous or its length too large.
let badFraming: [(text: String, status: Int)] = [
    (framed("Content-Length: 1\r\nContent-Length: 2\r\n") + "ab", 400),
    (framed("Content-Length: 1\r\nContent-Length: 1\r\n") + "a", 400),
    (framed("Content-Length: 1, 1\r\n") + "a", 400),
    (framed("Content-Length: +1\r\n") + "a", 400),
    (framed("Content-Length: -1\r\n"), 400),
    (framed("Content-Length: 1 1\r\n"), 400),
    (framed("Content-Length: \r\n"), 400),
    (framed("Content-Length: 0x1\r\n"), 400),
    (framed("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400),
    (framed("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n") + "0\r\n\r\n", 400),
    (framed("Transfer-Encoding: gzip\r\n"), 400),
    (framed("Transfer-Encoding: \r\n"), 400),
    (framed("Transfer-Encoding: chunked, gzip\r\n"), 400),
    (framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
    (framed("Transfer-Encoding: xchunked\r\n"), 400),
    (framed("Transfer-Encoding: chunked;q=1\r\n"), 400),
    (framed("Transfer-Encoding: gzip, chunked\r\n"), 501),
    (framed("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), 501),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (framed("Content-Length: 65537\r\n"), 413),
    (framed("Content-Length: 9223372036854775808\r\n"), 413),
    (framed("Content-Length: 18446744073709551617\r\n"), 413),
]

/// Chunked bodies that are rejected.
let badChunks: [(text: String, status: Int)] = [
    (chunked("\r\n"), 400),
    (chunked(";x\r\n"), 400),
    (chunked("g\r\n"), 400),
    (chunked("-1\r\n"), 400),
    (chunked("0x1\r\na\r\n0\r\n\r\n"), 400),
    (chunked(" 1\r\na\r\n0\r\n\r\n"), 400),
    (chunked("1 \r\na\r\n0\r\n\r\n"), 400),
    (chunked("1\na\r\n0\r\n\r\n"), 400),
    (chunked("1\ra\r\n"), 400),
    (chunked("1;a\nb\r\n"), 400),
    (chunked("1;\u{0}\r\n"), 400),
    (chunked("1\r\nab\r\n0\r\n\r\n"), 400),
    (chunked("1\r\na\n0\r\n\r\n"), 400),
    (chunked("1\r\na\r0"), 400),
    (chunked("0\r\n\n"), 400),
    (chunked("0\r\nX\r\n\r\n"), 400),
    (chunked("0\r\n X: 1\r\n\r\n"), 400),
    (chunked("0\r\nX : 1\r\n\r\n"), 400),
    (chunked("0\r\nX: \u{0}\r\n\r\n"), 400),
    (chunked("0\r\nX: 1\n\r\n"), 400),
    (chunked("0\r\n: 1\r\n\r\n"), 400),
    (chunked("10001\r\n"), 413),
    (chunked("fffffffffffffff\r\n"), 413),
    (chunked("ffffffffffffffff\r\n"), 413),
    (chunked("8000000000000000\r\n"), 413),
    (chunked("0000000000000001\r\n"), 413),
    (chunked("1\r\na\r\n10000\r\n"), 413),
]

/// A head whose fields end with `fields`.
func framed(_ fields: String) -> String { "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }

/// A request with a chunked body.
func chunked(_ body: String) -> String { framed("Transfer-Encoding: chunked\r\n") + body }
