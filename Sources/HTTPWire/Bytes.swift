// The character classes of RFC 9110 section 5.6, and operations on spans of bytes.

/// Whether `byte` is a `tchar`, as in methods and field names.
@inline(__always)
func isTokenByte(_ byte: UInt8) -> Bool {
    // One bit per ASCII character: !#$%&'*+-.0-9 in the low word, A-Z^_`a-z|~ in the high one.
    let low: UInt64 = 0x03FF_6CFA_0000_0000
    let high: UInt64 = 0x57FF_FFFF_C7FF_FFFE
    let word = byte & 0x40 == 0 ? low : high
    return byte < 0x80 && (word &>> UInt64(byte & 0x3F)) & 1 == 1
}

/// Whether `byte` is allowed in a field value: visible ASCII, space, tab, and obs-text.
@inline(__always)
func isFieldValueByte(_ byte: UInt8) -> Bool { byte >= 0x20 && byte != 0x7F || byte == 0x09 }

@inline(__always)
func isWhitespace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

@inline(__always)
func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

/// `byte` in lower case if it is an ASCII capital letter, otherwise unchanged.
@inline(__always)
func lowercased(_ byte: UInt8) -> UInt8 { byte &- 0x41 < 26 ? byte | 0x20 : byte }

private let lowBits: UInt64 = 0x0101_0101_0101_0101

/// Not 0 if a byte of `word` is 0; the bits above the lowest such byte are meaningless.
@inline(__always)
private func zeroBytes(_ word: UInt64) -> UInt64 {
    (word &- lowBits) & ~word & (0x80 &* lowBits)
}

extension Span<UInt8> {
    /// The first index in `range` whose byte is `byte`.
    @inline(__always)
    func firstIndex(of byte: UInt8, in range: Range<Int>) -> Int? {
        var index = range.lowerBound
        let pattern = UInt64(byte) &* lowBits
        while index &+ 8 <= range.upperBound, zeroBytes(word(at: index) ^ pattern) == 0 {
            index &+= 8
        }
        while index < range.upperBound {
            if self[index] == byte { return index }
            index &+= 1
        }
        return nil
    }

    /// Whether all bytes in `range` are allowed in a field value.
    @inline(__always)
    func isFieldValue(_ range: Range<Int>) -> Bool {
        var index = range.lowerBound
        while index &+ 8 <= range.upperBound {
            let word = word(at: index)
            // Control characters have none of their upper three bits set.
            let suspects = zeroBytes(word & (0xE0 &* lowBits)) | zeroBytes(word ^ (0x7F &* lowBits))
            if suspects != 0, !allSatisfy(in: index..<index &+ 8, isFieldValueByte) { return false }
            index &+= 8
        }
        return allSatisfy(in: index..<range.upperBound, isFieldValueByte)
    }

    /// The eight bytes from `index` on, which must be within the span.
    @inline(__always)
    private func word(at index: Int) -> UInt64 {
        precondition(index >= 0 && index &+ 8 <= count)
        // Safe: the bytes are within the span, and any bytes make a UInt64.
        return unsafe bytes.unsafeLoadUnaligned(
            fromUncheckedByteOffset: index, as: UInt64.self)
    }

    @inline(__always)
    func allSatisfy(in range: Range<Int>, _ isIncluded: (UInt8) -> Bool) -> Bool {
        var index = range.lowerBound
        while index < range.upperBound {
            if !isIncluded(self[index]) { return false }
            index &+= 1
        }
        return true
    }

    /// Whether the bytes in `range` are `text`, ignoring the case of ASCII letters; `text` is given
    /// in lower case.
    @inline(__always)
    func equals(_ range: Range<Int>, _ text: StaticString) -> Bool {
        guard range.count == text.utf8CodeUnitCount else { return false }
        let start = unsafe text.utf8Start
        for offset in 0..<range.count {
            // Safe: `offset` is below the text's length.
            let expected = unsafe start[offset]
            if lowercased(self[range.lowerBound + offset]) != expected { return false }
        }
        return true
    }

    /// `range` without the spaces and tabs at its ends.
    @inline(__always)
    func trimmed(_ range: Range<Int>) -> Range<Int> {
        var lower = range.lowerBound
        var upper = range.upperBound
        while lower < upper, isWhitespace(self[lower]) { lower &+= 1 }
        while lower < upper, isWhitespace(self[upper &- 1]) { upper &-= 1 }
        return lower..<upper
    }

    func string(_ range: Range<Int>) -> String {
        // Safe: the buffer does not outlive the closure.
        unsafe extracting(range).withUnsafeBufferPointer {
            unsafe String(decoding: $0, as: UTF8.self)
        }
    }
}

extension [UInt8] {
    mutating func append(_ bytes: Span<UInt8>) {
        // Safe: the buffer does not outlive the closure.
        unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }
}
