package import AWSWire
package import Base

/// Settings for calls to EC2.
package struct EC2Settings: Sendable {
    /// Nil: the region that the metadata service reports.
    package var region: String?
    /// Nil: the region's standard endpoint.
    package var endpoint: Endpoint?
    package var useFIPS: Bool
    package var useDualStack: Bool
    /// The operator's limit on attempts (AWS_MAX_ATTEMPTS); nil for the client's own policy.
    package var attemptsMax: Int?
    package var userAgent: String

    package init(
        region: String? = nil, endpoint: Endpoint? = nil, useFIPS: Bool = false,
        useDualStack: Bool = false, attemptsMax: Int? = nil,
        userAgent: String = "polarity-ecs-ebs-plugin"
    ) {
        self.region = region
        self.endpoint = endpoint
        self.useFIPS = useFIPS
        self.useDualStack = useDualStack
        self.attemptsMax = attemptsMax
        self.userAgent = userAgent
    }
}

extension EC2Settings {
    /// Reads the SDKs' variables; of those for the region, REGION has precedence. Errors name the
    /// variable.
    package init(environment: [String: String]) throws(OperationError) {
        self.init(
            useFIPS: try Self.flag("AWS_USE_FIPS_ENDPOINT", in: environment),
            useDualStack: try Self.flag("AWS_USE_DUALSTACK_ENDPOINT", in: environment))
        for name in ["REGION", "AWS_REGION", "AWS_DEFAULT_REGION"] where region == nil {
            guard let text = environment[name], !text.isEmpty else { continue }
            do { _ = try Endpoint.ec2(region: text) } catch {
                throw Self.wrong("\(name): \(error)")
            }
            region = text
        }
        do { endpoint = try Endpoint.override(in: environment) } catch {
            throw Self.wrong("\(error)")
        }
        if endpoint != nil, useFIPS || useDualStack {
            throw Self.wrong(
                "an endpoint URL cannot be combined with AWS_USE_FIPS_ENDPOINT or _DUALSTACK_ENDPOINT"
            )
        }
        if let text = environment["AWS_MAX_ATTEMPTS"], !text.isEmpty {
            guard let number = Int(text), number > 0 else {
                throw Self.wrong("AWS_MAX_ATTEMPTS is '\(text)', not a number of at least 1")
            }
            attemptsMax = number
        }
    }

    private static func flag(_ name: String, in environment: [String: String])
        throws(OperationError) -> Bool
    {
        switch environment[name]?.lowercased() {
        case nil, "", "false": return false
        case "true": return true
        case .some(let text): throw wrong("\(name) is '\(text)', not true or false")
        }
    }

    private static func wrong(_ found: String) -> OperationError {
        OperationError(.invalidInput, doing: "read the settings", found: found)
    }
}
