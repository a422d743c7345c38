extension HTTPResponse {
    /// Appends the serialised response.
    ///
    /// The body is omitted if the response must not have one: to HEAD, and with 204 and 304.
    /// - Parameters:
    ///   - method: The request's method; nil if the request could not be parsed that far.
    ///   - closing: Whether the connection ends with this response.
    ///   - date: The value of Date; nil omits the field.
    /// - Throws: `.malformed` if a header field is invalid; then nothing is appended.
    package func serialise(
        into output: inout [UInt8], method: String?, closing: Bool, date: String?
    ) throws(HTTPWireError) {
        precondition((100...999).contains(status), "\(status) is not an HTTP status")
        try headers.check()
        appendStatusLine(status, to: &output)
        if let date { output.append("Date: ", date, "\r\n") }
        output.append(headers)
        let isBodyless = status == 204 || status == 304 || status < 200
        if !isBodyless { output.append("Content-Length: ", String(body.count), "\r\n") }
        output.append(closing ? "Connection: close\r\n\r\n" : "\r\n")
        if !isBodyless, method != "HEAD" { output.append(contentsOf: body) }
    }

    /// The interim response that `Expect: 100-continue` asks for.
    package static let continueBytes = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)
}

extension HTTPRequest {
    /// Appends the serialised request.
    ///
    /// - Parameter host: The value of Host, unless the headers have their own.
    /// - Throws: `.malformed` if the method is not a token, the target or the host has white space
    ///   or is empty, or a header field is invalid; then nothing is appended.
    package func serialise(into output: inout [UInt8], host: String) throws(HTTPWireError) {
        let isVisible = { (byte: UInt8) in byte > 0x20 && byte < 0x7F }
        guard !method.isEmpty, method.utf8.allSatisfy(isTokenByte), !target.isEmpty,
            target.utf8.allSatisfy(isVisible), host.utf8.allSatisfy(isVisible)
        else { throw HTTPWireError(.malformed, "the request line cannot be made") }
        try headers.check()
        output.append(contentsOf: method.utf8)
        output.append(" ")
        output.append(contentsOf: target.utf8)
        output.append(" HTTP/1.1\r\n")
        if !headers.contains("host") { output.append("Host: ", host, "\r\n") }
        output.append(headers)
        if !body.isEmpty || method == "POST" || method == "PUT" {
            output.append("Content-Length: ", String(body.count), "\r\n")
        }
        output.append("\r\n")
        output.append(contentsOf: body)
    }
}

extension HTTPHeaders {
    fileprivate func check() throws(HTTPWireError) {
        guard isValid else {
            throw HTTPWireError(.malformed, "a header field cannot go on the wire")
        }
    }
}

extension [UInt8] {
    fileprivate mutating func append(_ text: StaticString) {
        // Safe: the bytes of a static string do not move.
        unsafe append(
            contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    fileprivate mutating func append(_ name: StaticString, _ value: String, _ end: StaticString) {
        append(name)
        var value = value
        value.withUTF8 { unsafe append(contentsOf: $0) }
        append(end)
    }

    /// The fields except those that serialising generates.
    fileprivate mutating func append(_ headers: HTTPHeaders) {
        headers.forEachField { name, value in
            if isWireField(name) { return }
            append(contentsOf: name)
            append(": ")
            append(contentsOf: value)
            append("\r\n")
        }
    }
}

private func isWireField(_ name: ArraySlice<UInt8>) -> Bool {
    let all = 0..<name.count
    return switch name.count {
    case 10: name.span.equals(all, "connection")
    case 14: name.span.equals(all, "content-length")
    case 17: name.span.equals(all, "transfer-encoding")
    default: false
    }
}

/// The status line, with a reason for each status that this project's servers send; other statuses
/// get an empty reason.
private func appendStatusLine(_ status: Int, to output: inout [UInt8]) {
    if status == 200 {
        output.append("HTTP/1.1 200 OK\r\n")
        return
    }
    output.append("HTTP/1.1 ")
    output.append(contentsOf: String(status).utf8)
    output.append(" ")
    output.append(reasonPhrase(status))
    output.append("\r\n")
}

private func reasonPhrase(_ status: Int) -> StaticString {
    switch status {
    case 200: "OK"
    case 204: "No Content"
    case 304: "Not Modified"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 409: "Conflict"
    case 413: "Content Too Large"
    case 414: "Request-URI Too Long"
    case 415: "Unsupported Media Type"
    case 417: "Expectation Failed"
    case 429: "Too Many Requests"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 501: "Not Implemented"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    case 505: "HTTP Version Not Supported"
    default: ""
    }
}
