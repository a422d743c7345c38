import Base
import TestSupport
import Testing

@testable import XML

private func parse(_ text: String) throws(XMLError) -> XMLElement {
    try XMLElement.parse(Array(text.utf8))
}

@Suite struct XMLTreeTests {
    @Test func `names, text and order are kept`() throws {
        let root = try parse(
            """
            <?xml version="1.0" encoding="UTF-8"?>
            <a xmlns="http://example.com/"><!-- not kept -->
              <b k="v">one</b>
              <b>two</b>
              <n:c><![CDATA[<&>]]> &amp; &#x2713;</n:c>
            </a>
            """)
        #expect(
            root
                == XMLElement(
                    "a",
                    children: [
                        XMLElement("b", text: "one"), XMLElement("b", text: "two"),
                        XMLElement("c", text: "<&> & ✓"),
                    ]))
    }

    @Test(arguments: ["a:", ":", "a::"])
    func `a name that ends with a colon has no prefix`(name: String) throws {
        #expect(try parse("<\(name)>x</\(name)>") == XMLElement(name, text: "x"))
    }

    @Test func `the spaces of a value are kept`() throws {
        #expect(try parse("<a><b>  x\n y </b></a>").text(of: "b") == "  x\n y ")
    }

    @Test func `an empty element has no text`() throws {
        let root = try parse("<a><b/><c></c></a>")
        #expect(root.text(of: "b") == nil)
        #expect(root.text(of: "c") == nil)
        #expect(root.text(of: "d") == nil)
    }

    @Test func `a descendant is found at any depth, in document order`() throws {
        let root = try parse("<a><b><x>1</x></b><x>2</x></a>")
        #expect(root.descendant("x")?.text == "1")
        #expect(root["x"]?.text == "2")
    }
}

@Suite struct XMLRefusalTests {
    @Test(arguments: [
        "", " ", "text", "<a>", "<a></b>", "<a/><b/>", "<a/>tail", "<a>&unknown;</a>", "<a b></a>",
        "<a>\u{1}</a>", "<a", "</a>",
    ])
    func `a malformed document is refused with its place`(_ text: String) {
        #expect {
            try parse(text)
        } throws: { error in
            guard case .malformed(let reason, let line, _)? = error as? XMLError else {
                return false
            }
            return !reason.isEmpty && line >= 1
        }
    }

    @Test func `bytes that are not UTF-8 are refused`() {
        #expect(throws: XMLError.self) {
            try XMLElement.parse(Array("<a>".utf8) + [0xFF, 0xFE] + Array("</a>".utf8))
        }
    }

    @Test(arguments: [
        "<!DOCTYPE a [<!ENTITY e \"x\">]><a>&e;</a>", "<!DOCTYPE html><html></html>",
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
    ])
    func `a document type declaration is refused`(_ text: String) {
        #expect(throws: XMLError.documentType) { try parse(text) }
    }

    @Test func `depth is bounded`() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "<a>", count: depth) + String(repeating: "</a>", count: depth)
        }
        _ = try parse(nested(Limit.xmlDepthMax))
        #expect(throws: XMLError.limit(what: "levels", max: Limit.xmlDepthMax)) {
            try parse(nested(Limit.xmlDepthMax + 1))
        }
    }

    @Test func `the text of an element is bounded`() throws {
        func text(_ count: Int) -> String { "<a>" + String(repeating: "x", count: count) + "</a>" }
        _ = try parse(text(Limit.xmlTextMax))
        #expect(throws: XMLError.self) { try parse(text(Limit.xmlTextMax + 1)) }
    }

    @Test func `the number of elements is bounded`() throws {
        func many(_ count: Int) -> String {
            "<a>" + String(repeating: "<b/>", count: count) + "</a>"
        }
        _ = try parse(many(Limit.xmlElementsMax - 1))
        #expect(throws: XMLError.limit(what: "elements", max: Limit.xmlElementsMax)) {
            try parse(many(Limit.xmlElementsMax))
        }
    }

    @Test func `the document is bounded`() {
        let bytes = [UInt8](repeating: 0x20, count: Limit.ec2ResponseBodyMax + 1)
        #expect(throws: XMLError.limit(what: "bytes", max: Limit.ec2ResponseBodyMax)) {
            try XMLElement.parse(bytes)
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func `mutated documents parse or are refused, and never crash`(_ seed: UInt64) {
        let sample = Array(
            "<?xml version=\"1.0\"?><r xmlns=\"u\"><i>&lt;1</i><i><!--c--><![CDATA[x]]></i></r>"
                .utf8)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<4000 {
            let bytes = random.mutated(sample)
            guard let root = try? XMLElement.parse(bytes) else { continue }
            #expect(!root.name.isEmpty)
        }
    }
}
