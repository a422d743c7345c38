import Foundation
import ParserChecks
import Testing

@Suite struct CorpusTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Corpus")

    /// Inputs that `make fuzz` starts from, among them each that once broke the parser.
    @Test(arguments: CheckedParser.allCases)
    func `no input of the corpus breaks its parser`(parser: CheckedParser) throws {
        let inputs = try FileManager.default.contentsOfDirectory(
            at: Self.folder.appending(path: parser.rawValue), includingPropertiesForKeys: nil)
        #expect(inputs.count >= 5)
        for input in inputs {
            let broken = parser.broken(by: Array(try Data(contentsOf: input)))
            #expect(broken == nil, "\(parser.rawValue)/\(input.lastPathComponent)")
        }
    }
}
