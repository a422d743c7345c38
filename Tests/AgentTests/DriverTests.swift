import Agent
import JSON
import Simulation
import Testing

@Suite struct DriverTests {
    private func answer(
        _ fixture: Fixture, _ path: String, _ body: String = ""
    ) throws -> JSONValue {
        let call = try #require(VolumeDriver.Call(path))
        let bytes = try fixture.run { manager in
            await VolumeDriver(volumes: manager).answer(call, body: Array(body.utf8)).body
        }
        return try JSONValue.parse(bytes)
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
        (CancellationError() as any Error, "it was given up"), (BareError(), "the disk is full"),
    ])
    func `an error from below is told in words, with the call that it ended`(
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

    @Test func `a path that is none of the protocol's has no answer`() throws {
        #expect(VolumeDriver.Call("/VolumeDriver.Create") != nil)
        #expect(VolumeDriver.Call("/VolumeDriver.Destroy") == nil)
    }
}

private struct BareError: Error, CustomStringConvertible {
    var description: String { "the disk is full" }
}
