import Testing

@testable import polarity_ecs_ebs_plugin

@Suite struct DriverNameTests {
    private static let id = String(repeating: "0123456789abcdef", count: 4)

    /// Docker Engine 20.10's record of a plugin, shortened.
    private static func record(name: String, id: String = id) -> [UInt8] {
        Array(
            """
            {"plugin":{"Config":{"Description":"EBS"},"Enabled":true,"Id":"\(id)","Name":"\(name)",\
            "PluginReference":"\(name)","Settings":{"Env":["TAKEOVER=never"]}},\
            "Rootfs":"/x/rootfs","Config":"sha256:0","SwarmServiceID":""}
            """.utf8)
    }

    @Test(arguments: [
        ("polarity-ecs-ebs-plugin:latest", "polarity-ecs-ebs-plugin"),
        ("polarity-ecs-ebs-plugin:1.2.3", "polarity-ecs-ebs-plugin:1.2.3"),
        ("registry.example:5000/team/ebs_2:latest", "registry.example:5000/team/ebs_2"),
        ("ebs:latest-1", "ebs:latest-1"),
    ])
    func `the name comes from the record, without the tag latest`(
        recorded: String, name: String
    ) {
        #expect(DriverName.name(in: Self.record(name: recorded), of: Self.id) == name)
    }

    @Test func `a record that is not this plugin's or not understood gives no name`() {
        let other = String(Self.id.reversed())
        #expect(DriverName.name(in: Self.record(name: "ebs", id: other), of: Self.id) == nil)
        for name in ["", "a b", "a\\nb", "ä", "$(x)", String(repeating: "a", count: 400)] {
            #expect(DriverName.name(in: Self.record(name: name), of: Self.id) == nil, "\(name)")
        }
        for text in ["", "{}", "[]", "{\"plugin\":{\"Id\":\"\(Self.id)\",\"Name\":1}}", "{"] {
            #expect(DriverName.name(in: Array(text.utf8), of: Self.id) == nil, "\(text)")
        }
    }

    @Test func `a process that is not a plugin has no name`() {
        #expect(DriverName.ofPlugin(mountedAt: "/proc") == nil)
    }
}
