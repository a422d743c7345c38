import Agent
import Base
import JSON
import Testing
import VolumeCore

@Suite struct DriverTests {
    private func answer(
        _ fixture: Fixture, _ path: String, _ body: String = ""
    ) throws -> JSONValue {
        let call = try #require(VolumeDriver.Call(path))
        let bytes = try fixture.run { manager in
            switch VolumeDriver(volumes: manager).reply(to: call, body: Array(body.utf8)) {
            case .now(let answer): answer.body
            case .later(let work): await work().body
            }
        }
        return try JSONValue.parse(bytes)
    }

    @Test(arguments: [true, false])
    func `a Mount counts only if its response is sent`(
        isFirstSent: Bool
    ) throws {
        let fixture = Fixture(Fixture.xfs)
        let call = try #require(VolumeDriver.Call("/VolumeDriver.Mount"))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            for (id, isSent) in [("a", isFirstSent), ("b", false)] {
                let body = Array(#"{"Name":"\#(Fixture.name)","ID":"\#(id)"}"#.utf8)
                guard
                    case .later(let work) = VolumeDriver(volumes: manager).reply(
                        to: call, body: body)
                else {
                    Issue.record("it was answered without a wait")
                    return
                }
                let sent = await work().sent
                await manager.tell(sent, isSent)
                #expect(try await manager.get(Fixture.name).mounts == (isFirstSent ? 1 : 0))
            }
            try await fixture.sleep(.seconds(60))
            #expect(fixture.host.mounts.isEmpty == !isFirstSent)
            try await manager.unmount(Fixture.name, id: "a")
        }
        #expect(fixture.host.mounts.isEmpty)
    }

    @Test func `the whole life of a volume as Docker asks it`() throws {
        let fixture = Fixture()
        let name = #""Name":"\#(Fixture.name)""#
        #expect(try answer(fixture, "/Plugin.Activate") == ["Implements": ["VolumeDriver"]])
        #expect(
            try answer(fixture, "/VolumeDriver.Capabilities", "{}")
                == ["Capabilities": ["Scope": "local"]])
        #expect(
            try answer(fixture, "/VolumeDriver.Create", "{\(name),\"Opts\":null}") == ["Err": ""])
        let mounted = try answer(fixture, "/VolumeDriver.Mount", "{\(name),\"ID\":\"a\"}")
        #expect(mounted == ["Mountpoint": .string(Fixture.mountpoint), "Err": ""])
        let got = try answer(fixture, "/VolumeDriver.Get", "{\(name)}")
        #expect(got["Volume"]?["Mountpoint"]?.string == Fixture.mountpoint)
        #expect(got["Volume"]?["CreatedAt"]?.string?.hasPrefix("2023-11-14T") == true)
        let listed = try answer(fixture, "/VolumeDriver.List", "{}")
        #expect(listed["Volumes"]?.array?.count == 1)
        #expect(
            try answer(fixture, "/VolumeDriver.Unmount", "{\(name),\"ID\":\"a\"}") == ["Err": ""])
        let path = try answer(fixture, "/VolumeDriver.Path", "{\(name)}")
        #expect(path == ["Mountpoint": "", "Err": ""])
        #expect(try answer(fixture, "/VolumeDriver.Remove", "{\(name)}") == ["Err": ""])
        let gone = try answer(fixture, "/VolumeDriver.Get", "{\(name)}")
        #expect(gone["Err"]?.string?.isEmpty == false)
    }

    private let named = #""Name":"\#(Fixture.name)""#

    private func status(_ fixture: Fixture) throws -> JSONValue? {
        try answer(fixture, "/VolumeDriver.Get", "{\(named)}")["Volume"]?["Status"]
    }

    @Test func `Get's Status tells where a volume is`() throws {
        let fixture = Fixture()
        _ = try answer(fixture, "/VolumeDriver.Create", "{\(named)}")
        let detached: JSONValue = [
            "volume": .string(Fixture.name), "phase": "detached", "mounts": "0",
        ]
        #expect(try status(fixture) == detached)
        _ = try answer(fixture, "/VolumeDriver.Mount", #"{\#(named),"ID":"a"}"#)
        #expect(
            try status(fixture) == [
                "volume": .string(Fixture.name), "phase": "mounted", "mounts": "1",
                "device": "/dev/nvme1n1", "attachedAs": "/dev/sdf",
            ])
        _ = try answer(fixture, "/VolumeDriver.Unmount", #"{\#(named),"ID":"a"}"#)
        #expect(
            try status(fixture) == [
                "volume": .string(Fixture.name), "phase": "attached", "mounts": "0",
                "attachedAs": "/dev/sdf",
            ])
        try fixture.run { _ in try await fixture.sleep(.seconds(60)) }
        #expect(try status(fixture) == detached)
    }

    @Test func `options reach the volume, and Status warns of old contents and deletion`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        fixture.cloud.volumes[Fixture.id]?.attachments[0].deleteOnTermination = true
        fixture.host.unreplayed = [Fixture.id]
        let options = #""Opts":{"read-only":"true","mount-options":"norecovery"}"#
        let created = try answer(fixture, "/VolumeDriver.Create", "{\(named),\(options)}")
        #expect(created == ["Err": ""])
        #expect(try status(fixture)?["contents"] == nil)
        _ = try answer(fixture, "/VolumeDriver.Mount", #"{\#(named),"ID":"a"}"#)
        let status = try status(fixture)
        #expect(status?["contents"]?.string?.contains("the journal was not replayed") == true)
        let kept = status?["deletedWithInstance"]?.string
        #expect(kept?.contains("--instance-id \(Fixture.here)") == true)
    }

    @Test func `Status does not warn of deletion with another instance`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.volumes[Fixture.id]?.attachments[0].deleteOnTermination = true
        _ = try answer(fixture, "/VolumeDriver.Create", "{\(named)}")
        #expect(try status(fixture)?["deletedWithInstance"] == nil)
    }

    @Test func `List tells why a name cannot be used`() throws {
        let fixture = Fixture()
        var record = VolumeRecord(id: Fixture.id, createdAt: 1)
        record.names[0].flaw = "there is no such option"
        fixture.state.records = [record]
        try fixture.run { try await $0.start() }
        let volumes = try answer(fixture, "/VolumeDriver.List")["Volumes"]?.array
        #expect(volumes?.map { $0["Status"]?["problem"] } == ["there is no such option"])
    }

    @Test func `the error for an unknown volume says how to create it with this driver`() throws {
        let body = "{\"Name\":\"\(Fixture.name)\",\"ID\":\"a\"}"
        for path in ["/VolumeDriver.Mount", "/VolumeDriver.Get", "/VolumeDriver.Path"] {
            let text = try answer(Fixture(), path, body)["Err"]?.string ?? ""
            #expect(
                text.hasSuffix("run docker volume create -d ebs:1.2.3 \(Fixture.name)"), "\(text)")
        }
    }

    @Test(arguments: [
        ("", "docker plugin enable --timeout 120 ebs:1.2.3 "),
        ("{}", "the body has no string Name"),
        (#"{"Name":"vol-1a2b3c4d","Opts":[]}"#, "Opts is not a JSON object"),
        (#"{"Name":"vol-1a2b3c4d","Opts":{"uid":1}}"#, "a value in Opts is not a string"),
        ("[]", "the body is not a JSON object"),
    ])
    func `an error says what is wrong with a body`(body: String, words: String) throws {
        let text = try answer(Fixture(), "/VolumeDriver.Create", body)["Err"]?.string ?? ""
        #expect(text.hasPrefix("cannot answer /VolumeDriver.Create: "))
        #expect(text.contains(words) && text.contains("--timeout") == body.isEmpty, "\(text)")
    }

    @Test(arguments: [
        "", "[]", "{}", "{", #"{"Name":1}"#, #"{"Name":null}"#, #"{"Name":"../x"}"#,
        #"{"Name":"vol-0123456789abcdef0","Opts":[]}"#,
        #"{"Name":"vol-0123456789abcdef0","Opts":{"a":1}}"#,
        #"{"Name":"vol-0123456789abcdef0","Opts":{"colour":"red"}}"#,
    ])
    func `a body that is not understood is an error and changes nothing`(body: String) throws {
        let fixture = Fixture()
        let answer = try answer(fixture, "/VolumeDriver.Create", body)
        #expect(answer["Err"]?.string?.isEmpty == false)
        #expect(fixture.cloud.calls.isEmpty && fixture.state.saves == 0)
    }

    @Test(arguments: [
        (CancellationError() as any Error, "it was cancelled"), (BareError(), "the disk is full"),
    ])
    func `a low-level error is reported in words, with the call that failed`(
        error: any Error, words: String
    ) throws {
        let fixture = Fixture()
        fixture.state.saveError = error
        let text = try answer(
            fixture, "/VolumeDriver.Create", #"{"Name":"vol-0123456789abcdef0"}"#)["Err"]?.string
        let found = try #require(text)
        #expect(found.hasPrefix("cannot answer /VolumeDriver.Create: \(words)"), "\(found)")
        #expect(!found.contains("Error"), "\(found)")
    }

    @Test func `a path outside the protocol has no response`() throws {
        #expect(VolumeDriver.Call("/VolumeDriver.Create") != nil)
        #expect(VolumeDriver.Call("/VolumeDriver.Destroy") == nil)
    }
}

private struct BareError: Error, CustomStringConvertible {
    var description: String { "the disk is full" }
}

extension VolumeManager {
    fileprivate func tell(_ sent: (@Sendable (Bool) -> Void)?, _ isSent: Bool) { sent?(isSent) }
}
