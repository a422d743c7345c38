import Foundation
import Testing

/// The architecture as a test: which module may import which, and what stands nowhere in the
/// daemon. The map is in HACKING.md.
@Suite struct BoundaryTests {
    /// Pure modules and what they import of ours. They do no I/O.
    private static let pure: [String: Set<String>] = [
        "Base": [],
        "JSON": ["Base", "CJansson"],
        "XML": ["Base", "CExpat"],
        "HTTPWire": ["Base"],
        "AWSWire": ["Base", "JSON", "XML"],
        "VolumeCore": ["Base"],
        "Agent": ["Base", "JSON", "VolumeCore", "Logging"],
        "Simulation": ["Base", "VolumeCore", "Agent", "Logging"],
        "EC2Model": ["Base"],
    ]

    /// Edge modules: they know nothing of volumes' lives.
    private static let edge: [String: Set<String>] = [
        "Ring": ["Base", "CUring"],
        "TLS": ["COpenSSL"],
        "Streams": ["Base", "Ring", "TLS"],
        "Linux": ["Base", "Ring", "CLinux", "CBlkid"],
        "HTTPServer": ["Base", "HTTPWire", "Ring", "TLS", "Streams"],
        "HTTPClient": ["Base", "HTTPWire", "Ring", "TLS", "Streams", "CCares"],
        "EC2Client": ["Base", "AWSWire", "HTTPWire", "HTTPClient", "Ring", "TLS", "Logging"],
    ]

    private static let edgeLibraries: Set<String> = ["Glibc", "SystemPackage", "Synchronization"]

    private static let programs: Set<String> = [
        "polarity-ecs-ebs-plugin", "ec2-simulator", "life-simulator",
    ]

    @Test func `every module is known to this test`() throws {
        let found = try FileManager.default.contentsOfDirectory(atPath: sources.path)
        let known = Set(Self.pure.keys).union(Self.edge.keys).union(Self.programs)
        #expect(Set(found) == known)
    }

    @Test(arguments: pure.keys.sorted())
    func `a pure module imports no edge and no C module but a parser`(module: String) throws {
        let allowed = Self.pure[module] ?? []
        for file in try swiftFiles(of: module) {
            let foreign = file.imports.subtracting(allowed)
            #expect(foreign.isEmpty, "\(file.name) imports \(foreign.sorted())")
        }
    }

    @Test(arguments: edge.keys.sorted())
    func `an edge module imports what is below it`(module: String) throws {
        let allowed = (Self.edge[module] ?? []).union(Self.edgeLibraries)
        for file in try swiftFiles(of: module) {
            let foreign = file.imports.subtracting(allowed)
            #expect(foreign.isEmpty, "\(file.name) imports \(foreign.sorted())")
        }
    }

    /// A bare task resumes on the global pool's threads, and `Task.sleep` starts them: the daemon
    /// has one thread. Foundation would be most of its size.
    @Test(arguments: [
        #"\bTask\s*\{"#, #"\bTask\.detached\b"#, #"\bTask\.sleep\b"#, #"\bimport\s+Foundation"#,
        #"\bDispatchQueue\b"#,
    ])
    func `the daemon has nothing that leaves its thread, and no Foundation`(pattern: String) throws
    {
        let expression = try Regex(pattern)
        for module in Set(Self.pure.keys).union(Self.edge.keys).union(["polarity-ecs-ebs-plugin"]) {
            for file in try swiftFiles(of: module) {
                for (index, line) in file.code.enumerated() where line.contains(expression) {
                    Issue.record("\(file.name):\(index + 1) has \(line)")
                }
            }
        }
    }

    @Test func `a C header defines no feature macro that Swift would see`() throws {
        let shims = root.appending(path: "CShims")
        let files = FileManager.default.enumerator(at: shims, includingPropertiesForKeys: nil)
        for case let file as URL in try #require(files) where file.pathExtension == "h" {
            let text = try String(contentsOf: file, encoding: .utf8)
            #expect(!text.contains("#define _GNU_SOURCE"), "\(file.lastPathComponent)")
        }
    }

    @Test func `the rules find what breaks them`() throws {
        let file = SourceFile(
            name: "x", text: "package import Ring\n// Task { }\nTask { }\n/* import Foundation */")
        #expect(file.imports == ["Ring"])
        #expect(file.code.filter { $0.contains("Task {") }.count == 1)
    }
}

private let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
private let sources = root.appending(path: "Sources")

private struct SourceFile {
    let name: String
    /// The lines without line comments.
    let code: [String]

    init(name: String, text: String) {
        self.name = name
        code = text.components(separatedBy: "\n").map { line in
            line.firstRange(of: "//").map { String(line[..<$0.lowerBound]) } ?? line
        }
    }

    var imports: Set<String> {
        Set(
            code.compactMap { line in
                guard let match = line.firstMatch(of: /^\s*(?:@\w+\s+)*(?:\w+\s+)?import\s+(\w+)/)
                else { return nil }
                return String(match.output.1)
            })
    }
}

private func swiftFiles(of module: String) throws -> [SourceFile] {
    let folder = sources.appending(path: module)
    let files = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
    var found: [SourceFile] = []
    for case let file as URL in try #require(files) where file.pathExtension == "swift" {
        let text = try String(contentsOf: file, encoding: .utf8)
        found.append(SourceFile(name: "\(module)/\(file.lastPathComponent)", text: text))
    }
    #expect(!found.isEmpty, "\(module) has no sources")
    return found
}
