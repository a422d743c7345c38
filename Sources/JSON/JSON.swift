import Base
import CJansson

/// A JSON document, RFC 8259. Parsed by jansson.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int64)
    case real(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// The value of an object's member; nil if there is none or this is not an object.
    package subscript(_ key: String) -> JSONValue? {
        if case .object(let members) = self { members[key] } else { nil }
    }

    package var string: String? { if case .string(let text) = self { text } else { nil } }
    package var integer: Int64? { if case .integer(let number) = self { number } else { nil } }
    package var bool: Bool? { if case .bool(let flag) = self { flag } else { nil } }
    package var array: [JSONValue]? { if case .array(let values) = self { values } else { nil } }
    package var object: JSONObject? {
        if case .object(let members) = self { members } else { nil }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByIntegerLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(JSONObject(unique: elements.map { ($0, $1) }))
    }
}

/// Why a text is not a JSON document, and where.
package struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
    package var message: String
    /// In bytes from the start of the text.
    package var position: Int

    package var description: String { "not valid JSON: \(message) at byte \(position)" }
}

extension JSONValue {
    /// Parses one document of at most `Limit.jsonDepthMax` levels.
    ///
    /// Rejects duplicate members, bytes after the document, text that is not UTF-8, and the
    /// character U+0000. The caller limits the size.
    package static func parse(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
        var failure = json_error_t()
        let flags = Int(JSON_REJECT_DUPLICATES | JSON_DECODE_ANY)
        let document = unsafe bytes.withUnsafeBytes { text in
            unsafe json_loadb(text.baseAddress, text.count, flags, &failure)
        }
        guard let document = unsafe document else {
            throw JSONError(message: failure.message, position: Int(failure.position))
        }
        defer { unsafe json_decref(document) }
        return unsafe try JSONValue(document, depth: 1)
    }
}

extension JSONValue {
    private init(_ json: UnsafeMutablePointer<json_t>, depth: Int) throws(JSONError) {
        guard depth <= Limit.jsonDepthMax else {
            throw JSONError(message: "deeper than \(Limit.jsonDepthMax) levels", position: 0)
        }
        switch unsafe json.pointee.type {
        case JSON_OBJECT: self = unsafe .object(try Self.members(of: json, depth: depth))
        case JSON_ARRAY:
            var values: [JSONValue] = []
            for index in unsafe 0..<json_array_size(json) {
                guard let element = unsafe json_array_get(json, index) else { break }
                unsafe values.append(try JSONValue(element, depth: depth + 1))
            }
            self = .array(values)
        case JSON_STRING: self = unsafe .string(text(of: json))
        case JSON_INTEGER: self = unsafe .integer(Int64(json_integer_value(json)))
        case JSON_REAL: self = unsafe .real(json_real_value(json))
        case JSON_TRUE: self = .bool(true)
        case JSON_FALSE: self = .bool(false)
        default: self = .null
        }
    }

    private static func members(
        of json: UnsafeMutablePointer<json_t>, depth: Int
    ) throws(JSONError) -> JSONObject {
        var members: [JSONObject.Member] = []
        var iterator = unsafe json_object_iter(json)
        while let current = unsafe iterator {
            if let key = unsafe json_object_iter_key(current),
                let value = unsafe json_object_iter_value(current)
            {
                unsafe members.append(
                    (String(cString: key), try JSONValue(value, depth: depth + 1)))
            }
            unsafe iterator = json_object_iter_next(json, current)
        }
        return JSONObject(unique: members)
    }
}

private func text(of json: UnsafeMutablePointer<json_t>) -> String {
    guard let start = unsafe json_string_value(json) else { return "" }
    let bytes = unsafe UnsafeRawBufferPointer(start: start, count: json_string_length(json))
    return unsafe String(decoding: bytes, as: UTF8.self)
}

extension json_error_t {
    fileprivate var message: String {
        unsafe withUnsafeBytes(of: text) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}
