import Base
import CExpat

extension XMLElement {
    /// Parses a whole document and returns its root.
    ///
    /// Bounded by `Limit.ec2ResponseBodyMax` bytes, `Limit.xmlDepthMax` levels,
    /// `Limit.xmlElementsMax` elements and `Limit.xmlTextMax` bytes of text in one element.
    package static func parse(_ bytes: [UInt8]) throws(XMLError) -> XMLElement {
        guard bytes.count <= Limit.ec2ResponseBodyMax else {
            throw .limit(what: "bytes", max: Limit.ec2ResponseBodyMax)
        }
        guard let parser = unsafe XML_ParserCreate(nil) else { throw .outOfMemory }
        defer { unsafe XML_ParserFree(parser) }
        let builder = unsafe TreeBuilder(parser: parser)
        // Expat keeps this pointer only within XML_Parse, which `withExtendedLifetime` spans.
        unsafe XML_SetUserData(parser, Unmanaged.passUnretained(builder).toOpaque())
        unsafe XML_SetElementHandler(
            parser, { builder, name, _ in unsafe builderOf(builder).start(name) },
            { builder, _ in unsafe builderOf(builder).end() })
        unsafe XML_SetCharacterDataHandler(parser) {
            unsafe builderOf($0).append($1, count: Int($2))
        }
        unsafe XML_SetStartDoctypeDeclHandler(parser) { builder, _, _, _, _ in
            unsafe builderOf(builder).stop(.documentType)
        }
        let status = withExtendedLifetime(builder) {
            unsafe bytes.withUnsafeBytes { input in
                // An empty array may have no address, which expat treats as an error.
                unsafe input.isEmpty
                    ? XML_Parse(parser, "", 0, 1)
                    : XML_Parse(
                        parser, input.assumingMemoryBound(to: CChar.self).baseAddress,
                        Int32(input.count), 1)
            }
        }
        if let failure = builder.failure { throw failure }
        guard status == XML_STATUS_OK, let root = builder.root else {
            throw unsafe failure(of: parser)
        }
        return root
    }

    private static func failure(of parser: XML_Parser) -> XMLError {
        let code = unsafe XML_GetErrorCode(parser)
        if code == XML_ERROR_NO_MEMORY { return .outOfMemory }
        let reason =
            unsafe XML_ErrorString(code).map { unsafe String(cString: $0) } ?? "unknown error"
        return unsafe .malformed(
            reason: reason, line: Int(CExpat_line(parser)),
            column: Int(CExpat_column(parser)) + 1)
    }
}

private func builderOf(_ pointer: UnsafeMutableRawPointer?) -> TreeBuilder {
    guard let pointer = unsafe pointer else { preconditionFailure("expat lost its user data") }
    return unsafe Unmanaged<TreeBuilder>.fromOpaque(pointer).takeUnretainedValue()
}

/// Receives expat's events. A class, because expat passes its address through C.
@safe
private final class TreeBuilder {
    private struct Open {
        var name: String
        var text: [UInt8] = []
        var children: [XMLElement] = []
    }

    // Safe: `XMLElement.parse` keeps the parser for longer than its builder.
    private let parser: XML_Parser
    private var open: [Open] = []
    private var elements = 0
    private(set) var root: XMLElement?
    private(set) var failure: XMLError?

    init(parser: XML_Parser) { unsafe self.parser = parser }

    /// Keeps the first failure: expat may still deliver events after it was told to stop.
    func stop(_ error: XMLError) {
        guard failure == nil else { return }
        failure = error
        unsafe XML_StopParser(parser, XML_Bool(XML_FALSE))
    }

    func start(_ name: UnsafePointer<XML_Char>?) {
        guard failure == nil, let name = unsafe name else { return }
        elements += 1
        guard elements <= Limit.xmlElementsMax else {
            return stop(.limit(what: "elements", max: Limit.xmlElementsMax))
        }
        guard open.count < Limit.xmlDepthMax else {
            return stop(.limit(what: "levels", max: Limit.xmlDepthMax))
        }
        let qualified = unsafe String(cString: name)
        let colon = qualified.utf8.lastIndex(of: UInt8(ascii: ":"))
        let local = colon.map { String(qualified[qualified.utf8.index(after: $0)...]) } ?? qualified
        // A name may end with a colon, which does not end a prefix then.
        open.append(Open(name: local.isEmpty ? qualified : local))
    }

    func append(_ characters: UnsafePointer<XML_Char>?, count: Int) {
        guard failure == nil, let characters = unsafe characters, let last = open.indices.last
        else { return }
        guard open[last].text.count + count <= Limit.xmlTextMax else {
            return stop(.limit(what: "bytes of text in an element", max: Limit.xmlTextMax))
        }
        let bytes = unsafe UnsafeRawBufferPointer(start: characters, count: count)
        unsafe open[last].text.append(contentsOf: bytes)
    }

    func end() {
        guard failure == nil, let closed = open.popLast() else { return }
        let indents = !closed.children.isEmpty && closed.text.allSatisfy(isXMLSpace)
        let text = indents ? "" : String(decoding: closed.text, as: UTF8.self)
        let element = XMLElement(closed.name, text: text, children: closed.children)
        if let parent = open.indices.last {
            open[parent].children.append(element)
        } else {
            root = element
        }
    }
}

private func isXMLSpace(_ byte: UInt8) -> Bool {
    byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D
}
