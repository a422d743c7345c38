import JSON
import Testing

@Suite struct JSONTests {
    @Test(arguments: [
        #"{"Name":"vol-0123456789abcdef0","Opts":{"uid":"1000"},"n":[1,-2,true,false,null,"é\n"]}"#,
        #"{}"#, #"[]"#, #""""#, "0", "1.5",
    ])
    func `a document comes back as it was`(text: String) throws {
        let value = try JSONValue.parse(Array(text.utf8))
        #expect(try JSONValue.parse(value.serialised()) == value)
    }

    @Test func `members are read by name`() throws {
        let value = try JSONValue.parse(Array(#"{"Name":"a","Opts":{"b":"c"},"n":7}"#.utf8))
        #expect(value["Name"]?.string == "a")
        #expect(value["Opts"]?["b"]?.string == "c")
        #expect(value["n"]?.integer == 7)
        #expect(value["none"] == nil)
    }

    @Test func `names that only look the same are different members`() throws {
        let text = "{\"\u{e9}\":1,\"e\u{301}\":2}"
        var members = try #require(try JSONValue.parse(Array(text.utf8)).object)
        #expect(members["\u{e9}"] == 1 && members["e\u{301}"] == 2)
        members["e\u{301}"] = 3
        #expect(
            JSONValue.object(members).serialised() == Array(text.replacing("2", with: "3").utf8))
        members["e\u{301}"] = nil
        #expect(members.names == ["\u{e9}"])
    }

    @Test(arguments: [
        "", "{", #"{"a":1,"a":2}"#, #"{"a":1}x"#, "nul", #""\u0000""#, #"{"\u0000":1}"#,
        "\"\u{01}\"", "[1,]", "01", "1e999999",
    ])
    func `text that is not a document is rejected`(text: String) {
        #expect(throws: JSONError.self) { try JSONValue.parse(Array(text.utf8)) }
    }

    @Test func `bytes that are not UTF-8 are refused`() {
        #expect(throws: JSONError.self) { try JSONValue.parse([0x22, 0xC3, 0x28, 0x22]) }
    }

    @Test func `depth is bounded`() throws {
        func nested(_ levels: Int) -> [UInt8] {
            Array(repeating: UInt8(ascii: "["), count: levels)
                + Array(repeating: UInt8(ascii: "]"), count: levels)
        }
        #expect(throws: Never.self) { try JSONValue.parse(nested(16)) }
        #expect(throws: JSONError.self) { try JSONValue.parse(nested(17)) }
        #expect(throws: JSONError.self) { try JSONValue.parse(nested(100_000)) }
    }

    @Test func `a document is written with its members in order, and what needs it escaped`() {
        let value: JSONValue = [
            "b": [1, .real(-1.5), true, .null, [], [:]],
            "a": "\"\\/\u{0}\u{1f} \u{7f}é\n",
        ]
        let text = #"{"b":[1,-1.5,true,null,[],{}],"a":"\"\\/\u0000\u001f \#u{7f}é\u000a"}"#
        #expect(String(decoding: value.serialised(), as: UTF8.self) == text)
        #expect(JSONValue.real(.infinity).serialised() == Array("0.0".utf8))
    }

    @Test(arguments: ["\"", "\\", "\u{1f}", "\u{1}"])
    func `special characters are escaped at any position`(character: String) throws {
        for length in 1...20 {
            for place in 0..<length {
                let text =
                    String(repeating: "é", count: place / 2)
                    + String(repeating: "~", count: place % 2) + character
                    + String(repeating: " ", count: length - place - 1)
                let value = JSONValue.string(text)
                #expect(try JSONValue.parse(value.serialised()) == value)
            }
        }
    }

    @Test func `an empty string can be written`() {
        #expect(JSONValue.object(["Err": ""]).serialised() == Array(#"{"Err":""}"#.utf8))
    }
}
