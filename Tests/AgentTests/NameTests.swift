import Agent
import Base
import Testing
import VolumeCore

@Suite struct NameTests {
    private static let option = ["volume-id": Fixture.name]

    private func withTwoNames(
        _ options: [String: String] = [:],
        _ body: @escaping @Sendable (Fixture, VolumeManager) async throws -> Void
    ) throws -> Fixture {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create("a", options: Self.option)
            try await manager.create("b", options: Self.option.merging(options) { $1 })
            try await body(fixture, manager)
        }
        return fixture
    }

    @Test func `a volume is known by each of its names, and mounted at one place`() throws {
        let fixture = try withTwoNames { fixture, manager in
            try await manager.create(Fixture.name, options: [:])
            for name in ["a", "b", Fixture.name] {
                #expect(try await manager.mount(name, id: name) == Fixture.mountpoint)
            }
            let listed = await manager.list()
            #expect(listed.map(\.name) == ["a", "b", Fixture.name])
            #expect(listed.allSatisfy { $0.mountpoint == Fixture.mountpoint && $0.mounts == 3 })
            for name in ["a", "b"] { try await manager.unmount(name, id: name) }
            #expect(fixture.host.mounts.count == 1)
            try await manager.unmount(Fixture.name, id: Fixture.name)
            #expect(fixture.host.mounts.isEmpty)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `the options are those of the name that is mounted`() throws {
        _ = try withTwoNames(["read-only": "true"]) { fixture, manager in
            for (name, isReadOnly) in [("a", false), ("b", true), ("a", false)] {
                _ = try await manager.mount(name, id: "x")
                #expect(fixture.host.mounts[Fixture.mountpoint]?.readOnly == isReadOnly)
                try await manager.unmount(name, id: "x")
            }
        }
    }

    @Test(arguments: [
        ["read-only": "true"], ["fs-type": "ext4"], ["partition": "1"],
        ["mount-options": "noatime"],
    ])
    func `options that cannot both be are refused with both names`(
        options: [String: String]
    ) throws {
        _ = try withTwoNames(options) { fixture, manager in
            _ = try await manager.mount("a", id: "x")
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount("b", id: "y")
            }
            let text = "\(error.map { "\($0)" } ?? "")"
            #expect(text.contains("mount b") && text.contains("as a"))
            #expect(text.contains(options.keys.first ?? "?"))
            #expect(try await manager.get("a").mounts == 1)
            #expect(fixture.host.mounts.count == 1)
        }
    }

    /// The one stands for the other.
    @Test func `options that say the same in other words are no conflict`() throws {
        _ = try withTwoNames(["fs-type": "xfs", "takeover": "never", "uid": "5"]) { _, manager in
            _ = try await manager.mount("a", id: "x")
            _ = try await manager.mount("b", id: "y")
        }
    }

    /// The counts of running containers were made with the first name's options.
    @Test func `a conflict is one after a restart too`() throws {
        let fixture = try withTwoNames(["read-only": "true"]) { fixture, manager in
            _ = try await manager.mount("b", id: "x")
            try await fixture.sleep(.seconds(1))
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            await #expect(throws: OperationError.self) { try await manager.mount("a", id: "y") }
            _ = try await manager.mount("b", id: "y")
            await #expect(throws: OperationError.self) { try await manager.remove("b") }
            try await manager.remove("a")
        }
    }

    @Test func `an abandoned mount is mounted again for the other name`() throws {
        _ = try withTwoNames(["read-only": "true"]) { fixture, manager in
            let cut = fixture.start { try await $0.mount("a", id: "x") }
            try await fixture.sleep(.milliseconds(10))
            cut.cancel()
            _ = try? await cut.value
            _ = try await manager.mount("b", id: "y")
            #expect(fixture.host.mounts[Fixture.mountpoint]?.readOnly == true)
        }
    }

    @Test func `Remove of one name keeps the others, and what is mounted by them`() throws {
        let fixture = try withTwoNames { fixture, manager in
            _ = try await manager.mount("a", id: "x")
            try await fixture.sleep(.seconds(1))
            await #expect(throws: OperationError.self) { try await manager.remove("a") }
            try await manager.remove("b")
            await #expect(throws: OperationError.self) { try await manager.get("b") }
            try await manager.unmount("a", id: "x")
            try await manager.create("b", options: Self.option)
            try await manager.remove("a")
            #expect(try await manager.mount("b", id: "x") == Fixture.mountpoint)
            try await fixture.sleep(.seconds(1))
        }
        fixture.restart()
        try fixture.run { manager in
            try await manager.start()
            #expect(await manager.list().map(\.name) == ["b"])
        }
    }

    @Test func `options of an unused name can change while another is mounted`() throws {
        _ = try withTwoNames { fixture, manager in
            _ = try await manager.mount("a", id: "x")
            try await manager.create("b", options: ["volume-id": Fixture.name, "read-only": ""])
            #expect(fixture.host.mounts[Fixture.mountpoint]?.readOnly == false)
            await #expect(throws: OperationError.self) {
                try await manager.create(
                    "a", options: ["volume-id": Fixture.name, "read-only": ""])
            }
        }
    }

    @Test func `a name is one volume's`() throws {
        _ = try withTwoNames { fixture, manager in
            let other = VolumeID(literal: "vol-1a2b3c4d")
            fixture.cloud.add(other, .blank)
            await #expect(throws: OperationError.self) {
                try await manager.create("a", options: ["volume-id": "\(other)"])
            }
        }
    }

    @Test func `a volume has as many names as are allowed, and no more`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            for number in 1...Limit.namesPerVolumeMax {
                try await manager.create("n\(number)", options: Self.option)
            }
            let error = await #expect(throws: OperationError.self) {
                try await manager.create("more", options: Self.option)
            }
            #expect(error?.reason == .limitReached)
        }
    }

    // MARK: Names whose records are not understood

    private func withFlaw(_ fixture: Fixture) {
        var record = VolumeRecord(id: Fixture.id, name: "a", createdAt: 1)
        record.names[0].flaw = "there is no such option"
        fixture.state.records = [record]
    }

    @Test func `a name that is not understood is listed, and refuses to be used, with the reason`()
        throws
    {
        let fixture = Fixture()
        withFlaw(fixture)
        try fixture.run { manager in
            try await manager.start()
            #expect(await manager.list().map(\.problem) == ["there is no such option"])
            for options in [[:], ["volume-id": Fixture.name, "read-only": "true"]] {
                let error = await #expect(throws: OperationError.self) {
                    try await manager.create("a", options: Self.option.merging(options) { $1 })
                }
                #expect(error?.found.contains("there is no such option") == true)
            }
            let error = await #expect(throws: OperationError.self) {
                try await manager.mount("a", id: "x")
            }
            #expect(error?.found.contains("there is no such option") == true)
        }
        #expect(fixture.cloud.calls.isEmpty)
    }

    @Test func `a name that is not understood can be removed and created again`() throws {
        let fixture = Fixture()
        withFlaw(fixture)
        try fixture.run { manager in
            try await manager.start()
            try await manager.remove("a")
            try await manager.create("a", options: Self.option)
            _ = try await manager.mount("a", id: "x")
        }
    }
}
