import AWSWire
import Base
import EC2Client
import Testing

@testable import polarity_ecs_ebs_plugin

@Suite struct SettingsTests {
    @Test func `the defaults are those that the plugin needs`() throws {
        let settings = try Settings(environment: [:])
        #expect(settings.socketPath == "/run/docker/plugins/pl-ebs.sock")
        #expect(settings.mountPath == "/mnt")
        #expect(settings.statePath == "/var/lib/polarity-ecs-ebs-plugin")
        #expect(settings.detachAfter == .seconds(15))
        #expect(settings.metadataEndpoint?.description == "http://169.254.169.254")
        #expect(settings.ec2.region == nil && settings.instanceID == nil)
    }

    @Test(
        arguments: [
            ("0", .zero), ("15", .seconds(15)), ("90s", .seconds(90)), ("5m", .seconds(300)),
            ("2h", .seconds(7200)), ("never", nil),
        ] as [(String, Duration?)])
    func `the linger is a time or never`(text: String, linger: Duration?) throws {
        #expect(try Settings(environment: ["DETACH_AFTER": text]).detachAfter == linger)
    }

    @Test func `a blank volume gets an xfs by default`() throws {
        #expect(try Settings(environment: [:]).fileSystem == .xfs)
        #expect(try Settings(environment: ["FS_TYPE": "ext4"]).fileSystem == .ext4)
    }

    @Test(arguments: [
        ("FS_TYPE", "btrfs"), ("DETACH_AFTER", "soon"), ("DETACH_AFTER", "-1"),
        ("DETACH_AFTER", "1d"),
        ("INSTANCE_ID", "host-1"), ("REGION", "eu west"), ("AWS_REGION", "../x"),
        ("AWS_MAX_ATTEMPTS", "0"), ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_USE_FIPS_ENDPOINT", "perhaps"), ("AWS_USE_DUALSTACK_ENDPOINT", "2"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "169.254.169.254"),
        ("AWS_ENDPOINT_URL", "ftp://x"), ("AWS_ENDPOINT_URL_EC2", "https://"),
        ("LOG_LEVEL", "loud"), ("TAKEOVER", "sometimes"), ("LOG_FORMAT", "xml"),
        ("MOUNT_PATH", "mnt"), ("DEV_PATH", "."), ("STATE_PATH", "state"),
        ("SOCK_PATH", String(repeating: "x", count: 108)),
    ])
    func `an invalid value is rejected with its variable's name`(
        variable: String, value: String
    ) {
        let error = #expect(throws: SettingError.self) {
            try Settings(environment: [variable: value])
        }
        #expect(error?.description.contains(variable) == true)
    }

    @Test func `a variable set to nothing is not set`() throws {
        let settings = try Settings(environment: [
            "REGION": "", "DETACH_AFTER": "", "LOG_LEVEL": "",
        ])
        #expect(settings.ec2.region == nil && settings.detachAfter == .seconds(15))
    }

    @Test func `the endpoint for EC2 alone comes before the one for all`() throws {
        let settings = try Settings(environment: [
            "AWS_ENDPOINT_URL": "https://all.example",
            "AWS_ENDPOINT_URL_EC2": "https://ec2.example",
        ])
        #expect(settings.ec2.endpoint?.host == "ec2.example")
    }

    @Test func `AWS's bundle comes before OpenSSL's`() throws {
        let both = ["AWS_CA_BUNDLE": "/a", "SSL_CERT_FILE": "/b"]
        #expect(try Settings(environment: both).caFile == "/a")
        #expect(try Settings(environment: ["SSL_CERT_FILE": "/b"]).caFile == "/b")
    }
}
