import Testing

@testable import AWSWire

@Suite struct EndpointTests {
    /// Region, FIPS, dual stack, host, according to the SDKs' published endpoint rules.
    @Test(arguments: [
        ("eu-west-1", false, false, "ec2.eu-west-1.amazonaws.com"),
        ("eu-west-1", false, true, "ec2.eu-west-1.api.aws"),
        ("us-east-1", true, false, "ec2-fips.us-east-1.amazonaws.com"),
        ("us-east-1", true, true, "ec2-fips.us-east-1.api.aws"),
        ("us-gov-west-1", false, false, "ec2.us-gov-west-1.amazonaws.com"),
        ("us-gov-west-1", true, false, "ec2.us-gov-west-1.amazonaws.com"),
        ("us-gov-west-1", true, true, "ec2-fips.us-gov-west-1.api.aws"),
        ("cn-north-1", false, false, "ec2.cn-north-1.amazonaws.com.cn"),
        ("cn-north-1", false, true, "ec2.cn-north-1.api.amazonwebservices.com.cn"),
        ("us-iso-east-1", false, false, "ec2.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", false, false, "ec2.us-isob-east-1.sc2s.sgov.gov"),
        ("eu-isoe-west-1", false, false, "ec2.eu-isoe-west-1.cloud.adc-e.uk"),
        ("us-isof-south-1", false, false, "ec2.us-isof-south-1.csp.hci.ic.gov"),
        ("eusc-de-east-1", false, false, "ec2.eusc-de-east-1.amazonaws.eu"),
        ("eusc-de-east-1", false, true, "ec2.eusc-de-east-1.api.amazonwebservices.eu"),
        ("mars-north-9", false, false, "ec2.mars-north-9.amazonaws.com"),
    ])
    func `a region's endpoint is that of its partition`(
        region: String, fips: Bool, dualStack: Bool, host: String
    ) throws {
        let endpoint = try Endpoint.ec2(region: region, useFIPS: fips, useDualStack: dualStack)
        #expect(endpoint == Endpoint(isTLS: true, host: host, port: 443))
    }

    @Test(arguments: ["", "eu west", "EU-WEST-1", "x/y", "evil.example"])
    func `text that is not a region name is rejected`(_ region: String) {
        #expect(throws: EndpointError.self) { try Endpoint.ec2(region: region) }
    }

    @Test(arguments: [
        (
            "https://localhost:8443", Endpoint(isTLS: true, host: "localhost", port: 8443),
            "localhost:8443"
        ),
        ("http://127.0.0.1", Endpoint(isTLS: false, host: "127.0.0.1", port: 80), "127.0.0.1"),
        (
            "http://[fd00:ec2::254]/", Endpoint(isTLS: false, host: "fd00:ec2::254", port: 80),
            "[fd00:ec2::254]"
        ),
        (
            "https://[::1]:444/a/b/", Endpoint(isTLS: true, host: "::1", port: 444, path: "/a/b"),
            "[::1]:444"
        ),
        ("HTTPS://h", Endpoint(isTLS: true, host: "h", port: 443), "h"),
    ])
    func `a URL is parsed`(url: String, endpoint: Endpoint, authority: String) throws {
        #expect(try Endpoint(url: url) == endpoint)
        #expect(endpoint.authority == authority)
    }

    @Test(arguments: [
        "", "localhost:8443", "ftp://h", "https://", "https://:1", "https://h:0", "https://h:x",
        "https://h:65536", "https://u@h", "https://h?x", "https://h#x", "https://h h",
        "https://[::1",
        "https://[::1]x", "https://h\r\nX: y",
    ])
    func `text that is not such a URL is rejected`(_ url: String) {
        #expect(throws: EndpointError.self) { try Endpoint(url: url) }
    }

    @Test func `the variables override in the SDKs' order`() throws {
        var environment: [String: String] = [:]
        #expect(try Endpoint.override(in: environment) == nil)
        for (name, host) in [
            ("AWS_EC2_ENDPOINT", "c"), ("AWS_ENDPOINT_URL", "b"), ("AWS_ENDPOINT_URL_EC2", "a"),
        ] {
            environment[name] = "https://\(host)"
            #expect(try Endpoint.override(in: environment)?.host == host)
        }
        environment["AWS_ENDPOINT_URL_EC2"] = ""
        #expect(try Endpoint.override(in: environment)?.host == "b")
    }

    @Test func `an invalid URL is reported with its variable`() {
        #expect {
            try Endpoint.override(in: ["AWS_ENDPOINT_URL": "nowhere"])
        } throws: { "\($0)".contains("AWS_ENDPOINT_URL: 'nowhere'") }
    }
}
