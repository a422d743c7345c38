import COpenSSL

/// Why TLS failed, in OpenSSL's words.
package struct TLSError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Reason: Sendable, Equatable {
        /// A certificate or key file cannot be used.
        case files
        /// This side rejected the peer's certificate: chain, validity, or name.
        case untrustedPeer
        /// The peer broke the protocol, sent an alert, or shares no version or cipher.
        case protocolFailure
        /// The transport ended before the peer's close_notify: the received data may be incomplete.
        case truncated
    }

    package var reason: Reason
    /// What was found, for a human: one line.
    package var found: String

    package init(_ reason: Reason, _ found: String) {
        self.reason = reason
        self.found = found
    }

    package var description: String { "TLS: \(found)" }
}

/// Drains this thread's error queue into one line, the oldest entry first.
func drainErrorQueue() -> String {
    var entries: [String] = []
    while true {
        var data: UnsafePointer<CChar>?
        var flags: Int32 = 0
        let error = ERR_get_error_all(nil, nil, nil, &data, &flags)
        if error == 0 { break }
        var entry = reasonText(error)
        if let data, flags & ERR_TXT_STRING != 0 {
            let text = String(cString: data)
            if !text.isEmpty { entry += " (\(text))" }
        }
        if entries.last != entry { entries.append(entry) }
    }
    return entries.isEmpty ? "no reason given" : entries.joined(separator: "; ")
}

private func reasonText(_ error: UInt) -> String {
    let errno = COpenSSL_errno_of(error)
    if errno != 0, let text = strerror(errno) { return String(cString: text) }
    if let text = ERR_reason_error_string(error) { return String(cString: text) }
    return "error \(String(error, radix: 16))"
}
