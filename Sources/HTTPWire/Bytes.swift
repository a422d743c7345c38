/// The character classes of RFC 9110 section 5.6, on bytes.

/// Whether `byte` is a `tchar`: what methods, field names and the like are made of.
@inline(__always)
func isTokenByte(_ byte: UInt8) -> Bool {
    // One bit for each ASCII character: !#$%&'*+-.0-9 in the low word, A-Z^_`a-z|~ in the high one.
    let low: UInt64 = 0x03FF_6CFA_0000_0000
    let high: UInt64 = 0x57FF_FFFF_C7FF_FFFE
    return byte < 64
        ? (low >> UInt64(byte)) & 1 == 1 : byte < 128 && (high >> UInt64(byte & 63)) & 1 == 1
}

/// Whether `byte` may stand in a field value: visible ASCII, space, tab, and obs-text.
@inline(__always)
func isFieldValueByte(_ byte: UInt8) -> Bool { byte >= 0x20 && byte != 0x7F || byte == 0x09 }

@inline(__always)
func isWhitespace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

@inline(__always)
func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

/// `byte` in lower case if it is an ASCII capital, else unchanged.
@inline(__always)
func lowercased(_ byte: UInt8) -> UInt8 { byte &- 0x41 < 26 ? byte | 0x20 : byte }
