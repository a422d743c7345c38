/// Keeps RFC 3986's unreserved characters, and encodes every other byte as `%XX` in upper case: the
/// one encoding that SigV4 and the EC2 Query API agree on.
func percentEncoded(_ bytes: some Sequence<UInt8>, keepingSlash: Bool = false) -> String {
    var encoded: [UInt8] = []
    for byte in bytes {
        if isUnreserved(byte) || (keepingSlash && byte == UInt8(ascii: "/")) {
            encoded.append(byte)
        } else {
            encoded.append(UInt8(ascii: "%"))
            encoded.append(hexDigit(byte >> 4, upperCase: true))
            encoded.append(hexDigit(byte & 0xF, upperCase: true))
        }
    }
    return String(decoding: encoded, as: UTF8.self)
}

/// Decodes `%XX`; a `%` that is not followed by two digits is kept.
func percentDecoded(_ bytes: some Collection<UInt8>) -> [UInt8] {
    var decoded: [UInt8] = []
    var rest = bytes[...]
    while let byte = rest.popFirst() {
        let digits = rest.prefix(2).compactMap(hexValue)
        if byte == UInt8(ascii: "%"), digits.count == 2 {
            decoded.append(digits[0] << 4 | digits[1])
            rest = rest.dropFirst(2)
        } else {
            decoded.append(byte)
        }
    }
    return decoded
}

func hexEncoded(_ bytes: some Sequence<UInt8>) -> String {
    let digits = bytes.flatMap {
        [hexDigit($0 >> 4, upperCase: false), hexDigit($0 & 0xF, upperCase: false)]
    }
    return String(decoding: digits, as: UTF8.self)
}

private func isUnreserved(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
        UInt8(ascii: "_"), UInt8(ascii: "~"):
        true
    default: false
    }
}

private func hexDigit(_ value: UInt8, upperCase: Bool) -> UInt8 {
    value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: upperCase ? "A" : "a") + value - 10
}

private func hexValue(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
}
