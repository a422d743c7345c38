import JSON
import Logging
import Testing

@testable import polarity_ecs_ebs_plugin

@Suite struct LineLogTests {
    private func line(
        _ format: Settings.LogFormat, _ message: String, _ fields: Logger.Metadata
    ) -> String {
        String(
            decoding: LineLog.line(
                format, time: "2026-11-23T07:05:09Z", level: .info, message: message,
                fields: fields), as: UTF8.self)
    }

    @Test func `an event is one line with its fields in order`() {
        #expect(
            line(.text, "mounted", ["volume": "vol-1", "fs": "xfs", "note": "a \"b\""])
                == "2026-11-23T07:05:09Z info mounted fs=xfs note=\"a 'b'\" volume=vol-1\n")
    }

    @Test(arguments: [Settings.LogFormat.text, .json])
    func `text from outside cannot create a second line`(format: Settings.LogFormat) {
        let line = line(format, "a\nb", ["error": "x\r\n2026 info forged"])
        #expect(line.filter(\.isNewline).count == 1 && line.hasSuffix("\n"))
    }

    @Test func `a JSON line is a document`() throws {
        let line = line(.json, "mounted", ["volume": "vol-1"])
        let document = try JSONValue.parse(Array(line.dropLast().utf8))
        #expect(document["volume"]?.string == "vol-1")
        #expect(document["message"]?.string == "mounted")
    }
}
