import Foundation
import Testing

/// The published test vectors: the SigV4 test suite and recorded EC2 answers. They are no part of
/// this repository; POLARITY_VECTORS names their folder.
enum Vectors {
    static let folder: String = {
        if let folder = ProcessInfo.processInfo.environment["POLARITY_VECTORS"] { return folder }
        let root = URL(filePath: #filePath).appending(path: "../../..").standardized
        return root.deletingLastPathComponent().appending(path: "shared/vectors")
            .path(percentEncoded: false)
    }()

    /// Under CI a missing folder fails the tests that read it; elsewhere they are skipped.
    static var runnable: Bool {
        FileManager.default.fileExists(atPath: folder)
            || ProcessInfo.processInfo.environment["CI"] == "true"
    }

    static let skipped: Comment = "no test vectors: POLARITY_VECTORS names no folder"

    static func bytes(_ path: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(filePath: "\(folder)/\(path)")))
    }

    static func text(_ path: String) throws -> String {
        String(decoding: try bytes(path), as: UTF8.self)
    }

    /// The paths, without extension, of the cases of the signature suite.
    static func signatureCases() throws -> [String] {
        let files = try FileManager.default.subpathsOfDirectory(atPath: "\(folder)/sigv4")
        return files.filter { $0.hasSuffix(".req") }.map { "sigv4/" + $0.dropLast(4) }.sorted()
    }
}
