import AWSWire
import Base
import EC2Client
import Logging
import VolumeCore

/// The settings from the environment. They have the names of the AWS SDKs if those have one.
struct Settings: Sendable {
    enum LogFormat: String, CaseIterable { case text, json }

    var socketPath = "/run/docker/plugins/pl-ebs.sock"
    var mountPath = "/mnt"
    var devPath = "/dev"
    var sysPath = "/sys"
    /// In the plugin, a folder of the host is mounted at /var/lib.
    var statePath = "/var/lib/polarity-ecs-ebs-plugin"
    /// Nil: forever.
    var detachAfter: Duration? = .seconds(15)
    /// The file system of a blank volume whose options do not specify one.
    var fileSystem = FileSystemType.xfs
    var takeover = TakeoverPolicy.unlessMounted

    /// If set, these replace the information from the metadata service; the region is in `ec2`.
    var availabilityZone: String?
    var instanceID: InstanceID?

    /// Nil if the metadata service is disabled.
    var metadataEndpoint: Endpoint?
    var ec2 = EC2Settings()
    var caFile = "/etc/ssl/certs/ca-certificates.crt"

    var logLevel = Logger.Level.info
    var logFormat = LogFormat.text
    /// A file that receives the log in addition to the standard streams.
    var logFile: String?

    var version = "unknown"
    var commit = "unknown"
    /// What the plugin was built from: versions by the names of the source packages.
    var packages: [String: String] = [:]
}

/// An environment variable has an invalid value; the text names the variable.
struct SettingError: Error, Equatable, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }

    init(variable: String, problem: String) { description = "\(variable): \(problem)" }
}

extension Settings {
    /// Throws for the first invalid value. A variable with an empty value counts as not set.
    init(environment: [String: String]) throws(SettingError) {
        let variables = Variables(environment)
        version = variables["BUILD_VERSION"] ?? version
        commit = variables["BUILD_COMMIT"] ?? commit
        packages = Self.packages(variables["BUILD_CONTENTS"] ?? "")
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
    }

    /// `name=version`, separated by spaces.
    private static func packages(_ text: String) -> [String: String] {
        var versions: [String: String] = [:]
        for entry in text.split(separator: " ").prefix(Limit.packagesMax) {
            let parts = entry.split(separator: "=", maxSplits: 1)
            if parts.count == 2 { versions[String(parts[0])] = String(parts[1]) }
        }
        return versions
    }

    private mutating func readPaths(_ variables: Variables) throws(SettingError) {
        mountPath = try variables.folder("MOUNT_PATH") ?? mountPath
        devPath = try variables.folder("DEV_PATH") ?? devPath
        sysPath = try variables.folder("SYS_PATH") ?? sysPath
        statePath = try variables.folder("STATE_PATH") ?? statePath
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
        do {
            ec2 = try EC2Settings(environment: variables.all)
            metadataEndpoint = try Endpoint.instanceMetadata(in: variables.all)
        } catch let error as OperationError {
            throw SettingError(error.found)
        } catch {
            throw SettingError("\(error)")
        }
        ec2.userAgent = "polarity-ecs-ebs-plugin/\(version)"
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
                variable: variable, problem: "it must be a time such as 15s, 5m or 2h, or never"
            )
        }
        return .seconds(number * (scale ?? 1))
    }
}

/// The variables with a value that is not empty.
private struct Variables {
    let all: [String: String]

    init(_ environment: [String: String]) { all = environment.filter { !$0.value.isEmpty } }

    subscript(_ name: String) -> String? { all[name] }

    func folder(_ name: String) throws(SettingError) -> String? {
        guard var path = all[name] else { return nil }
        guard path.hasPrefix("/") else {
            throw SettingError(variable: name, problem: "it must be an absolute path")
        }
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        return path
    }
}
