import Base
import Testing

@Suite struct TextTests {
    @Test(
        arguments: [
            ("a://b://c", "://", "a"), ("::://x", "://", "::"), ("abc", "abc", ""),
            ("ab", "abc", nil), ("", "a", nil), ("abc", "", nil),
        ] as [(String, String, String?)])
    func `the first occurrence is found`(text: String, part: String, before: String?) {
        let range = text.range(ofFirst: part)
        #expect(range.map { String(text[..<$0.lowerBound]) } == before)
        if let range { #expect(text[range] == part) }
    }

    @Test func `every occurrence is replaced, and what comes in is not searched again`() {
        #expect("/x and /x/y".replacingAll("/x", by: "/x/x") == "/x/x and /x/x/y")
        #expect("nothing".replacingAll("thin", by: "") == "nog")
        #expect("nothing".replacingAll("x", by: "y") == "nothing")
    }
}
