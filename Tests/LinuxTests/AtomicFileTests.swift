import Base
import Glibc
import Linux
import Ring
import TestSupport
import Testing

@Suite struct AtomicFileTests {
    private static func withFolder(
        _ body: @escaping @RingActor @Sendable (String) async throws -> Void
    ) async throws {
        var template = Array("/tmp/atomic-file-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw OperationError(.system, doing: "", found: "") }
        let folder = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer {
            for name in ["f", "f.new", "f.unreadable", "lock"] { unlink("\(folder)/s/\(name)") }
            rmdir("\(folder)/s")
            rmdir(folder)
        }
        try await onRing { try await body(folder) }
    }

    @Test func `what was written is read, and replaced as a whole`() async throws {
        try await Self.withFolder { folder in
            let file = AtomicFile(path: "\(folder)/s/f", sizeMax: 100)
            #expect(try await file.read() == nil)
            try await file.replace(with: Array(repeating: 1, count: 100))
            try await file.replace(with: [2, 3])
            #expect(try await file.read() == [2, 3])
        }
    }

    @Test func `a file that is too large is not read`() async throws {
        try await Self.withFolder { folder in
            let file = AtomicFile(path: "\(folder)/s/f", sizeMax: 1)
            try await file.replace(with: [1, 2])
            await #expect(throws: OperationError.self) { try await file.read() }
        }
    }

    @Test func `a file that was set aside is gone from its path, but not lost`() async throws {
        try await Self.withFolder { folder in
            let file = AtomicFile(path: "\(folder)/s/f", sizeMax: 10)
            try await file.replace(with: [1])
            let aside = try await file.setAside()
            #expect(try await file.read() == nil)
            #expect(try await AtomicFile(path: aside, sizeMax: 10).read() == [1])
        }
    }

    @Test func `a folder that cannot be written is an error that names it`() async throws {
        try await Self.withFolder { folder in
            let error = await #expect(throws: OperationError.self) {
                try await AtomicFile(path: "/proc/none/f", sizeMax: 10).replace(with: [])
            }
            #expect(error?.description.contains("/proc/none") == true)
        }
    }

    @Test func `a folder has one holder, and is free when that is gone`() async throws {
        try await Self.withFolder { folder in
            var first: FolderLock? = try FolderLock("\(folder)/s", holder: "the first")
            let error = #expect(throws: OperationError.self) {
                try FolderLock("\(folder)/s", holder: "the second, whose name is longer")
            }
            #expect(error?.description.contains("uses it: the first;") == true)
            withExtendedLifetime(first) {}
            first = nil
            // A child that another test is starting holds a copy of it until its exec.
            await RingActor.ring.blocking { ChildProcess.awaitStarts() }
            let second = try FolderLock("\(folder)/s", holder: "2")
            let again = #expect(throws: OperationError.self) {
                try FolderLock("\(folder)/s", holder: "3")
            }
            #expect(again?.description.contains("uses it: 2;") == true)
            withExtendedLifetime(second) {}
            var status = stat()
            #expect(lstat("\(folder)/s", &status) == 0 && status.st_mode & 0o777 == 0o700)
        }
    }

    @Test func `a state folder that cannot be made is an error that names it`() {
        let error = #expect(throws: OperationError.self) {
            try FolderLock("/proc/none/state", holder: "")
        }
        #expect(error?.description.contains("/proc/none/state") == true)
    }
}
