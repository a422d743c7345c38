import Glibc
import Testing

@testable import Linux

@Suite struct BuildFactsTests {
    @Test func `a line is a name and a value`() throws {
        let path = "/tmp/build-facts-\(UInt64.random(in: .min ... .max))"
        let text = "BUILD_VERSION=1.2=3\nno variable\n\nBUILD_COMMIT=abc\n"
        let file = try #require(fopen(path, "w"))
        fputs(text, file)
        fclose(file)
        defer { unlink(path) }
        #expect(buildFacts(in: path) == ["BUILD_VERSION": "1.2=3", "BUILD_COMMIT": "abc"])
    }

    @Test func `without a file nothing is known`() { #expect(buildFacts(in: "/proc/none") == [:]) }
}
