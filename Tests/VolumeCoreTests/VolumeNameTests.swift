import Base
import Testing
import VolumeCore

@Suite struct VolumeNameTests {
    private static let id = VolumeID(literal: "vol-1a2b3c4d")

    private static func options(_ id: VolumeID?) -> VolumeOptions {
        var options = VolumeOptions()
        options.volumeID = id
        return options
    }

    @Test(arguments: [
        "a", "Z", "0", "9a", "data.db", "a_b-c.d", "volume", "vol",
        String(repeating: "x", count: 255),
    ])
    func `a name of the user's choice is the volume that its option names`(name: String) throws {
        #expect(VolumeName.isValid(name))
        #expect(try VolumeName.volume(name, Self.options(Self.id)) == Self.id)
        let error = #expect(throws: OperationError.self) {
            try VolumeName.volume(name, Self.options(nil))
        }
        #expect(error?.advice?.contains("-o volume-id=vol-") == true)
    }

    @Test(arguments: ["vol-1a2b3c4d", "vol-0123456789abcdef0"])
    func `an id means its volume, even if repeated, and no other`(name: String) throws {
        let id = try #require(VolumeID(name))
        #expect(try VolumeName.volume(name, Self.options(nil)) == id)
        #expect(try VolumeName.volume(name, Self.options(id)) == id)
        #expect(throws: OperationError.self) {
            try VolumeName.volume(name, Self.options(VolumeID(literal: "vol-00000000")))
        }
    }

    @Test(arguments: [
        "", String(repeating: "x", count: 256), ".", "..", "../x", "a/b", "-a", ".a", "_a", "a b",
        "a@",
        "a[", "a`", "a{", "a/", "a:", "é", "aé", "a\0", "vol-", "vol-x", "vol-1A2B3C4D",
        "vol-1a2b3c4",
    ])
    func `nothing else is a valid name, whatever its option says`(name: String) throws {
        #expect(!VolumeName.isValid(name))
        for id in [nil, Self.id] {
            let error = #expect(throws: OperationError.self) {
                try VolumeName.volume(name, Self.options(id))
            }
            #expect(error?.found == "it is not an EBS volume id")
        }
    }
}
