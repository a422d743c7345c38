import AWSWire
import Base
import Logging
import VolumeCore

/// What the environment sets. The names are the AWS SDKs' where they have one.
struct Settings: Sendable {
    enum LogFormat: String, CaseIterable { case text, json }

    var socketPath = "/run/docker/plugins/pl-ebs.sock"
    var mountPath = "/mnt"
    var devPath = "/dev"
    var sysPath = "/sys"
    var statePath = ""
    /// Nil: for ever.
    var detachAfter: Duration? = .seconds(15)
    /// What a blank volume is given whose options do not tell.
    var fileSystem = FileSystemType.xfs
    var takeover = TakeoverPolicy.unlessMounted

    /// Each of these three that is set is not asked of the metadata service.
    var region: String?
    var availabilityZone: String?
    var instanceID: InstanceID?

    /// Nil where the metadata service is switched off.
    var metadataEndpoint: Endpoint?
    var ec2Endpoint: Endpoint?
    var useFIPS = false
    var useDualStack = false
    var attemptsMax: Int?
    var caFile = "/etc/ssl/certs/ca-certificates.crt"

    var logLevel = Logger.Level.info
    var logFormat = LogFormat.text
    /// Logged to as well as to standard output.
    var logFile: String?

    var version = "unknown"
    var commit = "unknown"
}

/// A variable of the environment that has a value it does not take.
struct SettingError: Error, Equatable, CustomStringConvertible {
    var variable: String
    var problem: String

    var description: String { "\(variable): \(problem)" }
}

extension Settings {
    /// Throws for the first value that cannot be used. A variable that is set to nothing is as good
    /// as not set.
    init(environment: [String: String]) throws(SettingError) {
        let variables = Variables(environment)
        try readPaths(variables)
        try readInstance(variables)
        try readAWS(variables)
        try readLog(variables)
        if let text = variables["DETACH_AFTER"] {
            detachAfter = try Self.duration("DETACH_AFTER", text)
        }
        if let text = variables["FS_TYPE"] {
            guard let type = FileSystemType(rawValue: text) else {
                let types = FileSystemType.allCases.map(\.rawValue).joined(separator: " and ")
                throw SettingError(variable: "FS_TYPE", problem: "the types are \(types)")
            }
            fileSystem = type
        }
        if let text = variables["TAKEOVER"] {
            guard let policy = TakeoverPolicy(rawValue: text) else {
                let policies = TakeoverPolicy.allCases.map(\.rawValue).joined(separator: ", ")
                throw SettingError(variable: "TAKEOVER", problem: "the policies are \(policies)")
            }
            takeover = policy
        }
        version = variables["BUILD_VERSION"] ?? version
        commit = variables["BUILD_COMMIT"] ?? commit
    }

    private mutating func readPaths(_ variables: Variables) throws(SettingError) {
        mountPath = try variables.folder("MOUNT_PATH") ?? mountPath
        devPath = try variables.folder("DEV_PATH") ?? devPath
        sysPath = try variables.folder("SYS_PATH") ?? sysPath
        statePath = mountPath + "/.polarity-ecs-ebs-plugin"
        if let path = variables["SOCK_PATH"] {
            // sockaddr_un.sun_path, unix(7).
            guard path.utf8.count < 108 else {
                throw SettingError(
                    variable: "SOCK_PATH", problem: "a socket's path has at most 107 bytes")
            }
            socketPath = path
        }
    }

    private mutating func readInstance(_ variables: Variables) throws(SettingError) {
        region = variables["REGION"] ?? variables["AWS_REGION"]
        availabilityZone = variables["AVAILABILITY_ZONE"]
        if let text = variables["INSTANCE_ID"] {
            guard let id = InstanceID(text) else {
                throw SettingError(
                    variable: "INSTANCE_ID",
                    problem: "an instance id is i- and 8 or 17 lower-case hexadecimal digits")
            }
            instanceID = id
        }
    }

    private mutating func readAWS(_ variables: Variables) throws(SettingError) {
        // Whatever is asked of EC2 goes to a host name that the region is part of.
        if let region {
            do { _ = try Endpoint.ec2(region: region) } catch {
                let name = variables["REGION"] == nil ? "AWS_REGION" : "REGION"
                throw SettingError(variable: name, problem: "\(error)")
            }
        }
        do { ec2Endpoint = try Endpoint.override(in: variables.all) } catch {
            throw SettingError(variable: "the endpoint of EC2", problem: "\(error)")
        }
        if try variables.flag("AWS_EC2_METADATA_DISABLED") != true {
            let name = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
            do {
                metadataEndpoint = try Endpoint(url: variables[name] ?? "http://169.254.169.254")
            } catch { throw SettingError(variable: name, problem: "\(error)") }
        }
        useFIPS = try variables.flag("AWS_USE_FIPS_ENDPOINT") ?? false
        useDualStack = try variables.flag("AWS_USE_DUALSTACK_ENDPOINT") ?? false
        if let text = variables["AWS_MAX_ATTEMPTS"] {
            guard let number = Int(text), (1...100).contains(number) else {
                throw SettingError(
                    variable: "AWS_MAX_ATTEMPTS", problem: "it is no number from 1 to 100")
            }
            attemptsMax = number
        }
        caFile = variables["AWS_CA_BUNDLE"] ?? variables["SSL_CERT_FILE"] ?? caFile
    }

    private mutating func readLog(_ variables: Variables) throws(SettingError) {
        if let text = variables["LOG_LEVEL"] {
            guard let level = Logger.Level(rawValue: text) else {
                let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
                throw SettingError(variable: "LOG_LEVEL", problem: "the levels are \(levels)")
            }
            logLevel = level
        }
        if let text = variables["LOG_FORMAT"] {
            guard let format = LogFormat(rawValue: text) else {
                throw SettingError(variable: "LOG_FORMAT", problem: "the formats are text and json")
            }
            logFormat = format
        }
        logFile = variables["LOG_FILE"]
    }

    /// `15`, `15s`, `5m`, `2h`; `never` is nil.
    private static func duration(
        _ variable: String, _ text: String
    ) throws(SettingError) -> Duration? {
        if text == "never" { return nil }
        let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600]
        let scale = text.last.flatMap { units[$0] }
        guard let number = Int(scale == nil ? text : String(text.dropLast())),
            number >= 0, number <= 1_000_000
        else {
            throw SettingError(
                variable: variable, problem: "it is neither a time such as 15s, 5m or 2h, nor never"
            )
        }
        return .seconds(number * (scale ?? 1))
    }
}

/// The variables that are set to something.
private struct Variables {
    let all: [String: String]

    init(_ environment: [String: String]) { all = environment.filter { !$0.value.isEmpty } }

    subscript(_ name: String) -> String? { all[name] }

    func flag(_ name: String) throws(SettingError) -> Bool? {
        switch all[name]?.lowercased() {
        case nil: return nil
        case "true", "1": return true
        case "false", "0": return false
        default: throw SettingError(variable: name, problem: "it is neither true nor false")
        }
    }

    func folder(_ name: String) throws(SettingError) -> String? {
        guard var path = all[name] else { return nil }
        guard path.hasPrefix("/") else {
            throw SettingError(variable: name, problem: "it is no absolute path")
        }
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        return path
    }
}
