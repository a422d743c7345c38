// swift-tools-version: 6.2
import PackageDescription

/// Settings of every Swift module: Swift 6, the stricter upcoming features, warnings as errors.
let common: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]

/// Pure modules do no I/O, and mark every unsafe expression.
let pureSettings = common + [.strictMemorySafety()]

/// - Parameter archives: Of a parser, which does no I/O either.
func pure(
    _ name: String, _ dependencies: [Target.Dependency] = [], archives: [String] = []
) -> Target {
    .target(
        name: name, dependencies: dependencies, swiftSettings: pureSettings,
        linkerSettings: archives.map { .linkedLibrary(":\($0)") })
}

/// Edge modules own descriptors and call the kernel and the C libraries, each linked as an archive.
func edge(_ name: String, _ dependencies: [Target.Dependency], archives: [String] = []) -> Target {
    .target(
        name: name, dependencies: dependencies, swiftSettings: common,
        linkerSettings: archives.map { .linkedLibrary(":\($0)") })
}

/// C code of the daemon, compiled with the run-time checks of glibc and clang. glibc's checks need
/// optimisation, so only release builds have them.
func shim(_ name: String, archives: [String] = []) -> Target {
    .target(
        name: name, path: "CShims/\(name)",
        cSettings: [
            .unsafeFlags(["-fstack-protector-strong"]),
            .define("_FORTIFY_SOURCE", to: "3", .when(configuration: .release)),
        ],
        linkerSettings: archives.map { .linkedLibrary(":\($0)") })
}

/// - Parameter judges: Programs in the folder of the tests that the tests run.
func tests(
    _ name: String, _ dependencies: [Target.Dependency], judges: [String] = []
) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, exclude: judges, swiftSettings: common)
}

let log = Target.Dependency.product(name: "Logging", package: "swift-log")
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "polarity-ecs-ebs-plugin",
    dependencies: [
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-system", exact: "1.8.1"),
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    ],
    targets: [
        shim("CUring", archives: ["liburing.a"]),
        shim("CLinux"),
        // Not of the daemon: loop devices, for the simulator and the tests.
        .target(name: "CLoop", path: "CShims/CLoop"),
        .systemLibrary(
            name: "COpenSSL", path: "CShims/COpenSSL", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CBlkid", path: "CShims/CBlkid", providers: [.apt(["libblkid-dev"])]),
        .systemLibrary(
            name: "CExpat", path: "CShims/CExpat", providers: [.apt(["libexpat1-dev"])]),
        .systemLibrary(
            name: "CJansson", path: "CShims/CJansson", providers: [.apt(["libjansson-dev"])]),
        .systemLibrary(
            name: "CCares", path: "CShims/CCares", providers: [.apt(["libc-ares-dev"])]),

        pure("Base"),
        pure("JSON", ["Base", "CJansson"], archives: ["libjansson.a"]),
        pure("HTTPWire", ["Base"]),
        pure("XML", ["Base", "CExpat"], archives: ["libexpat.a"]),
        pure("AWSWire", ["Base", "JSON", "XML"]),
        pure("VolumeCore", ["Base"]),
        pure("Agent", ["Base", "JSON", "VolumeCore", log]),
        .target(
            name: "Simulation", dependencies: ["Base", "VolumeCore", "Agent", log],
            // The checks would take a tenth of a simulated run's time. Debug builds have them.
            swiftSettings: pureSettings + [
                .unsafeFlags(
                    ["-enforce-exclusivity=unchecked"], .when(configuration: .release))
            ]),
        pure("EC2Model", ["Base"]),

        edge("Ring", ["Base", "CUring", "CLinux", system]),
        edge("TLS", ["COpenSSL"], archives: ["libssl.a", "libcrypto.a"]),
        edge("Linux", ["Base", "Ring", "CLinux", "CBlkid", system], archives: ["libblkid.a"]),
        edge("Streams", ["Base", "Ring", "TLS", system]),
        edge("HTTPServer", ["Base", "HTTPWire", "Ring", "Streams", "TLS", system]),
        edge(
            "HTTPClient", ["Base", "HTTPWire", "Ring", "Streams", "TLS", "CCares", system],
            archives: ["libcares.a"]),
        edge("EC2Client", ["Base", "AWSWire", "HTTPWire", "HTTPClient", "Ring", "TLS", log]),

        .executableTarget(
            name: "polarity-ecs-ebs-plugin",
            dependencies: [
                "Base", "JSON", "VolumeCore", "Agent", "Ring", "TLS", "Linux", "HTTPWire",
                "HTTPServer", "HTTPClient", "EC2Client", "AWSWire", "XML", "CLinux", log,
            ],
            swiftSettings: common),
        .executableTarget(
            name: "ec2-simulator",
            dependencies: [
                "Base", "EC2Model", "JSON", "AWSWire", "Ring", "Streams", "TLS", "HTTPWire",
                "CLoop", arguments, system,
            ],
            swiftSettings: common),

        .executableTarget(
            name: "life-simulator", dependencies: ["Simulation", arguments],
            swiftSettings: common),

        .target(
            name: "TestSupport", dependencies: ["Ring"], path: "Tests/TestSupport",
            swiftSettings: common),
        .target(
            name: "ParserChecks",
            dependencies: [
                "Base", "HTTPWire", "JSON", "XML", "AWSWire", "VolumeCore", "Agent", "Linux",
                "TestSupport",
            ], path: "Tests/ParserChecks", swiftSettings: common),
        tests("CorpusTests", ["ParserChecks"]),
        tests("BaseTests", ["Base"]),
        tests("JSONTests", ["JSON"]),
        tests("XMLTests", ["Base", "XML", "TestSupport"]),
        tests(
            "HTTPWireTests", ["Base", "HTTPWire", "ParserChecks", "TestSupport"],
            judges: ["h11_judge.py"]),
        tests(
            "AWSWireTests", ["Base", "JSON", "AWSWire", "TLS", "TestSupport"],
            judges: ["botocore_judge.py"]),
        tests("VolumeCoreTests", ["Base", "VolumeCore"]),
        tests("AgentTests", ["Base", "JSON", "VolumeCore", "Agent", "Simulation", log]),
        tests("SimulationTests", ["Base", "EC2Model", "Simulation", "VolumeCore"]),
        tests("RingTests", ["Base", "Ring", "CUring", "TestSupport", system]),
        tests("TLSTests", ["TLS", "TestSupport"]),
        tests("LinuxTests", ["Base", "Ring", "Linux", "CLoop", "TestSupport", system]),
        tests(
            "HTTPServerTests",
            ["Base", "HTTPWire", "Ring", "Streams", "TLS", "HTTPServer", "TestSupport", system]),
        tests(
            "HTTPClientTests",
            [
                "Base", "HTTPWire", "Ring", "Streams", "TLS", "HTTPServer", "HTTPClient",
                "TestSupport",
            ]),
        tests(
            "EC2ClientTests",
            [
                "Base", "AWSWire", "HTTPWire", "Ring", "TLS", "HTTPServer", "HTTPClient",
                "EC2Client",
                "TestSupport", log,
            ]),
        tests("EC2ModelTests", ["Base", "EC2Model"]),
        tests(
            "DaemonTests",
            ["Base", "JSON", "AWSWire", "EC2Client", "polarity-ecs-ebs-plugin", log]),
    ]
)

// Only `make fuzz` builds this: its main function is part of libFuzzer.
if Context.environment["POLARITY_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "fuzz", dependencies: ["ParserChecks"], path: "Tests/Fuzz", exclude: ["run"],
            swiftSettings: common + [.unsafeFlags(["-parse-as-library"])]))
}

// I/O-bound modules: optimise for size.
let small: Set = [
    "AWSWire", "EC2Client", "HTTPClient", "Linux", "TLS", "VolumeCore", "XML",
    "polarity-ecs-ebs-plugin",
]
for target in package.targets where small.contains(target.name) {
    target.swiftSettings? += [.unsafeFlags(["-Osize"], .when(configuration: .release))]
}
