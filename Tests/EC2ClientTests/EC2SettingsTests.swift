import AWSWire
import Base
import EC2Client
import Testing

@Suite struct EC2SettingsTests {
    @Test func `the SDKs' variables are read`() throws {
        let settings = try EC2Settings(environment: [
            "AWS_DEFAULT_REGION": "a-1", "AWS_REGION": "b-1", "AWS_MAX_ATTEMPTS": "5",
            "AWS_USE_FIPS_ENDPOINT": "True", "AWS_USE_DUALSTACK_ENDPOINT": "false",
        ])
        #expect(settings.region == "b-1" && settings.attemptsMax == 5)
        #expect(settings.useFIPS && !settings.useDualStack && settings.endpoint == nil)
    }

    @Test func `REGION comes before the SDKs' own names, and empty is not set`() throws {
        let both = try EC2Settings(environment: ["REGION": "c-1", "AWS_REGION": "b-1"])
        #expect(both.region == "c-1")
        let empty = try EC2Settings(environment: ["REGION": "", "AWS_MAX_ATTEMPTS": ""])
        #expect(empty.region == nil && empty.attemptsMax == nil)
    }

    @Test(arguments: [
        ("AWS_MAX_ATTEMPTS", "0"), ("AWS_MAX_ATTEMPTS", "many"), ("AWS_USE_FIPS_ENDPOINT", "yes"),
        ("AWS_ENDPOINT_URL", "localhost"), ("REGION", "eu west"),
    ])
    func `an invalid value is reported with its variable`(name: String, value: String) {
        #expect {
            try EC2Settings(environment: [name: value])
        } throws: { "\($0)".contains(name) && "\($0)".contains(value) }
    }

    @Test func `an endpoint URL cannot be combined with FIPS`() {
        #expect(throws: OperationError.self) {
            try EC2Settings(environment: [
                "AWS_ENDPOINT_URL": "https://h", "AWS_USE_FIPS_ENDPOINT": "true",
            ])
        }
    }
}
