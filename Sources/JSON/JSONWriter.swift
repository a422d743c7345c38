/// Writes one JSON document as compact UTF-8, member by member, without building a `JSONValue`: for
/// frequent responses.
///
/// A comma is inserted unless the previous byte opens an array or object.
@safe
package struct JSONWriter: ~Copyable {
    // Safe: the block is this value's alone, and room is reserved before each write.
    private var storage: UnsafeMutablePointer<UInt8>
    private var capacity: Int
    private var count = 0

    package init(capacity: Int = 512) {
        self.capacity = capacity
        unsafe storage = .allocate(capacity: capacity)
    }

    deinit { unsafe storage.deallocate() }

    /// The document so far.
    package var bytes: [UInt8] { unsafe Array(UnsafeBufferPointer(start: storage, count: count)) }

    package mutating func object(_ members: (inout JSONWriter) throws -> Void) rethrows {
        open("{")
        try members(&self)
        put("}")
    }

    package mutating func array(_ elements: (inout JSONWriter) throws -> Void) rethrows {
        open("[")
        try elements(&self)
        put("]")
    }

    package mutating func string(_ text: String) {
        separate()
        quote(text)
    }

    package mutating func member(_ name: StaticString, _ text: String) {
        self.name(name)
        quote(text)
    }

    package mutating func member(
        _ name: StaticString, _ value: (inout JSONWriter) throws -> Void
    ) rethrows {
        self.name(name)
        try value(&self)
    }

    private mutating func open(_ mark: Unicode.Scalar) {
        separate()
        put(mark)
    }

    private mutating func name(_ name: StaticString) {
        separate()
        unsafe quote(UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        put(":")
    }

    // MARK: For JSONValue

    /// A member's name that may need escapes.
    mutating func name(_ name: String) {
        separate()
        quote(name)
        put(":")
    }

    /// A number or a literal, verbatim.
    mutating func literal(_ text: String) {
        separate()
        var text = text
        text.withUTF8 { unsafe copy($0) }
    }

    // MARK: Bytes

    private mutating func separate() {
        guard count > 0 else { return }
        switch unsafe storage[count - 1] {
        case UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: ":"): break
        default: put(",")
        }
    }

    private mutating func quote(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            if unsafe needsEscape(bytes) {
                put("\"")
                for index in 0..<bytes.count { unsafe escape(bytes[index]) }
                put("\"")
            } else {
                unsafe quote(bytes)
            }
        }
    }

    /// Writes bytes that need no escape between quotation marks.
    @inline(__always)
    private mutating func quote(_ bytes: UnsafeBufferPointer<UInt8>) {
        reserve(bytes.count &+ 2)
        let end = unsafe storage + count
        unsafe end[0] = UInt8(ascii: "\"")
        if let start = bytes.baseAddress {
            unsafe (end + 1).update(from: start, count: bytes.count)
        }
        unsafe end[bytes.count &+ 1] = UInt8(ascii: "\"")
        count &+= bytes.count &+ 2
    }

    private mutating func escape(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            put("\\")
            put(Unicode.Scalar(byte))
        case ..<0x20:
            let digits = Array("0123456789abcdef".unicodeScalars)
            for mark in "\\u00".unicodeScalars { put(mark) }
            put(digits[Int(byte >> 4)])
            put(digits[Int(byte & 15)])
        default: copy(byte)
        }
    }

    @inline(__always)
    private mutating func put(_ mark: Unicode.Scalar) {
        copy(UInt8(truncatingIfNeeded: mark.value))
    }

    @inline(__always)
    private mutating func copy(_ byte: UInt8) {
        reserve(1)
        unsafe storage[count] = byte
        count &+= 1
    }

    private mutating func copy(_ bytes: UnsafeBufferPointer<UInt8>) {
        guard let start = bytes.baseAddress else { return }
        reserve(bytes.count)
        unsafe (storage + count).update(from: start, count: bytes.count)
        count &+= bytes.count
    }

    @inline(__always)
    private mutating func reserve(_ room: Int) {
        if capacity &- count < room { grow(room) }
    }

    @inline(never)
    private mutating func grow(_ room: Int) {
        capacity = max(capacity * 2, count + room)
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        unsafe larger.update(from: storage, count: count)
        unsafe storage.deallocate()
        unsafe storage = larger
    }
}

/// Whether a byte must be escaped in a string: RFC 8259, section 7.
private func needsEscape(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
    let raw = UnsafeRawBufferPointer(bytes)
    var index = 0
    while index &+ 8 <= raw.count {
        if unsafe needsEscape(raw.loadUnaligned(fromByteOffset: index, as: UInt64.self)) {
            return true
        }
        index &+= 8
    }
    // The remaining bytes, in a word padded with spaces.
    var rest: UInt64 = 0x2020_2020_2020_2020
    while index < raw.count {
        rest = unsafe rest &<< 8 | UInt64(raw[index])
        index &+= 1
    }
    return needsEscape(rest)
}

/// Whether any byte of the word needs an escape, tested for all bytes at once as in `HTTPWire`:
/// subtracting n from a byte that is less than n borrows into its top bit.
@inline(__always)
private func needsEscape(_ word: UInt64) -> Bool {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let quotes = word ^ (ones &* UInt64(UInt8(ascii: "\"")))
    let backslashes = word ^ (ones &* UInt64(UInt8(ascii: "\\")))
    let found =
        (word &- ones &* 0x20) & ~word | (quotes &- ones) & ~quotes
        | (backslashes &- ones) & ~backslashes
    return found & (ones &* 0x80) != 0
}
