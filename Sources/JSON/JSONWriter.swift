/// Writes one JSON document as compact UTF-8, member after member, without a `JSONValue` of it:
/// for answers that are made often.
///
/// A comma is put wherever the byte before opens nothing.
package struct JSONWriter: ~Copyable {
    private var storage: UnsafeMutablePointer<UInt8>
    private var capacity: Int
    private var count = 0

    package init(capacity: Int = 512) {
        self.capacity = capacity
        storage = .allocate(capacity: capacity)
    }

    deinit { storage.deallocate() }

    /// The document so far.
    package var bytes: [UInt8] { Array(UnsafeBufferPointer(start: storage, count: count)) }

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
        reserve(name.utf8CodeUnitCount + 3)
        put("\"")
        copy(UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        put("\"")
        put(":")
    }

    // MARK: For JSONValue

    /// A member's name that is not known to be free of what needs an escape.
    mutating func name(_ name: String) {
        separate()
        quote(name)
        put(":")
    }

    /// A number or a literal, as it is written.
    mutating func literal(_ text: String) {
        separate()
        var text = text
        text.withUTF8 { copy($0) }
    }

    // MARK: Bytes

    private mutating func separate() {
        guard count > 0 else { return }
        switch storage[count - 1] {
        case UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: ":"): break
        default: put(",")
        }
    }

    private mutating func quote(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            reserve(bytes.count + 2)
            put("\"")
            if needsEscape(bytes) {
                for byte in bytes { escape(byte) }
            } else {
                copy(bytes)
            }
            put("\"")
        }
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
        storage[count] = byte
        count &+= 1
    }

    private mutating func copy(_ bytes: UnsafeBufferPointer<UInt8>) {
        guard let start = bytes.baseAddress else { return }
        reserve(bytes.count)
        (storage + count).update(from: start, count: bytes.count)
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
        larger.update(from: storage, count: count)
        storage.deallocate()
        storage = larger
    }
}

/// Whether a byte cannot stand in a string as it is: RFC 8259, section 7.
private func needsEscape(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
    // Without an early end the compiler compares many at once.
    var found: UInt8 = 0
    for byte in bytes {
        found |= byte < 0x20 ? 1 : 0
        found |= byte == UInt8(ascii: "\"") ? 1 : 0
        found |= byte == UInt8(ascii: "\\") ? 1 : 0
    }
    return found != 0
}
