/// Where requests are sent: scheme, host, port and path prefix.
package struct Endpoint: Sendable, Hashable, CustomStringConvertible {
    package var isTLS: Bool
    /// A name or an address; an IPv6 address has no brackets here.
    package var host: String
    package var port: UInt16
    /// Empty, or `/prefix` without a trailing slash.
    package var path: String

    package init(isTLS: Bool, host: String, port: UInt16, path: String = "") {
        self.isTLS = isTLS
        self.host = host
        self.port = port
        self.path = path
    }

    /// The Host header: with the port unless it is the scheme's default.
    package var authority: String {
        let host = host.contains(":") ? "[\(host)]" : host
        return port == Self.defaultPort(isTLS: isTLS) ? host : "\(host):\(port)"
    }

    package var description: String { "\(isTLS ? "https" : "http")://\(authority)\(path)" }

    private static func defaultPort(isTLS: Bool) -> UInt16 { isTLS ? 443 : 80 }

    /// Parses `http[s]://host[:port][/path]`. User, query and fragment are not allowed.
    package init(url: String) throws(EndpointError) {
        let invalid = EndpointError("'\(url)' is not a URL of the form https://host[:port][/path]")
        let isTLS = url.lowercased().hasPrefix("https://")
        guard isTLS || url.lowercased().hasPrefix("http://"),
            url.utf8.allSatisfy({ (0x21...0x7E).contains($0) }),
            !url.contains(where: { "@?#\\".contains($0) })
        else { throw invalid }
        let rest = url.dropFirst(isTLS ? 8 : 7)
        let authority = rest.prefix { $0 != "/" }
        guard let (host, portText) = Self.split(authority), !host.isEmpty else { throw invalid }
        var port = Self.defaultPort(isTLS: isTLS)
        if let portText {
            guard let number = UInt16(portText), number > 0 else { throw invalid }
            port = number
        }
        var path = rest.dropFirst(authority.count)
        while path.hasSuffix("/") { path.removeLast() }
        self.init(isTLS: isTLS, host: String(host), port: port, path: String(path))
    }

    private static func split(_ authority: Substring) -> (Substring, Substring?)? {
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]") else { return nil }
            let host = authority[authority.index(after: authority.startIndex)..<end]
            let tail = authority[authority.index(after: end)...]
            if tail.isEmpty { return (host, nil) }
            return tail.hasPrefix(":") ? (host, tail.dropFirst()) : nil
        }
        let parts = authority.split(
            separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let host = parts.first else { return nil }
        return (host, parts.count == 2 ? parts[1] : nil)
    }
}

package struct EndpointError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}

extension Endpoint {
    /// EC2's endpoint in a region.
    ///
    /// Sources: docs.aws.amazon.com/ec2/latest/devguide/ec2-endpoints.html, and the partitions and
    /// the EC2 endpoint rules that AWS publishes with its SDKs.
    package static func ec2(region: String, useFIPS: Bool = false, useDualStack: Bool = false)
        throws(EndpointError) -> Endpoint
    {
        guard !region.isEmpty, region.utf8.allSatisfy(isRegionByte) else {
            throw EndpointError("'\(region)' is not a region name")
        }
        let partition = partition(of: region)
        // GovCloud's standard endpoints are FIPS endpoints already.
        let isPlain = !useFIPS || (partition.name == "aws-us-gov" && !useDualStack)
        let service = isPlain ? "ec2" : "ec2-fips"
        let suffix = useDualStack ? partition.dualStackSuffix : partition.suffix
        return Endpoint(isTLS: true, host: "\(service).\(region).\(suffix)", port: 443)
    }

    /// The endpoint URL that the environment sets: by the SDKs' variables first, then by the EBS
    /// CSI driver's.
    package static func override(in environment: [String: String])
        throws(EndpointError) -> Endpoint?
    {
        for name in ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL", "AWS_EC2_ENDPOINT"] {
            guard let url = environment[name], !url.isEmpty else { continue }
            do { return try Endpoint(url: url) } catch { throw EndpointError("\(name): \(error)") }
        }
        return nil
    }

    /// The instance metadata service, as the environment configures it; nil if it is disabled.
    ///
    /// Source: docs.aws.amazon.com/sdkref/latest/guide/feature-imds-credentials.html.
    package static func instanceMetadata(in environment: [String: String])
        throws(EndpointError) -> Endpoint?
    {
        if environment["AWS_EC2_METADATA_DISABLED"]?.lowercased() == "true" { return nil }
        let endpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
        if let url = environment[endpoint], !url.isEmpty {
            do { return try Endpoint(url: url) } catch {
                throw EndpointError("\(endpoint): \(error)")
            }
        }
        let mode = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"
        switch environment[mode]?.lowercased() {
        case nil, "", "ipv4": return Endpoint(isTLS: false, host: "169.254.169.254", port: 80)
        case "ipv6": return Endpoint(isTLS: false, host: "fd00:ec2::254", port: 80)
        case .some: throw EndpointError("\(mode) is neither IPv4 nor IPv6")
        }
    }

    private struct Partition {
        var name: String
        var regionPrefix: String
        var suffix: String
        var dualStackSuffix: String
    }

    private static let partitions = [
        Partition(
            name: "aws-cn", regionPrefix: "cn-", suffix: "amazonaws.com.cn",
            dualStackSuffix: "api.amazonwebservices.com.cn"),
        Partition(
            name: "aws-us-gov", regionPrefix: "us-gov-", suffix: "amazonaws.com",
            dualStackSuffix: "api.aws"),
        Partition(
            name: "aws-iso", regionPrefix: "us-iso-", suffix: "c2s.ic.gov",
            dualStackSuffix: "api.aws.ic.gov"),
        Partition(
            name: "aws-iso-b", regionPrefix: "us-isob-", suffix: "sc2s.sgov.gov",
            dualStackSuffix: "api.aws.scloud"),
        Partition(
            name: "aws-iso-e", regionPrefix: "eu-isoe-", suffix: "cloud.adc-e.uk",
            dualStackSuffix: "api.cloud-aws.adc-e.uk"),
        Partition(
            name: "aws-iso-f", regionPrefix: "us-isof-", suffix: "csp.hci.ic.gov",
            dualStackSuffix: "api.aws.hci.ic.gov"),
        Partition(
            name: "aws-eusc", regionPrefix: "eusc-", suffix: "amazonaws.eu",
            dualStackSuffix: "api.amazonwebservices.eu"),
    ]

    /// A region that belongs to no other partition belongs to the standard one; so does a region
    /// that is newer than this list.
    private static func partition(of region: String) -> Partition {
        partitions.first { region.hasPrefix($0.regionPrefix) }
            ?? Partition(
                name: "aws", regionPrefix: "", suffix: "amazonaws.com", dualStackSuffix: "api.aws")
    }

    private static func isRegionByte(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: "-")
    }
}
