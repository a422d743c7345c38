import Base
import Testing

@Suite struct IdentifierTests {
    @Test(arguments: ["vol-0123456789abcdef0", "vol-1a2b3c4d"])
    func `both lengths of volume ids are taken`(text: String) {
        #expect(VolumeID(text)?.description == text)
    }

    @Test(arguments: [
        "", "vol-", "vol", "../vol-1a2b3c4d", "vol-1a2b3c4d/..", "vol-1A2B3C4D", "vol-1a2b3c4",
        "vol-1a2b3c4d5", "vol-1a2b3c4g", "vol-1a2b3c4d\n", "vol-1a2b3c4d\0", "i-1a2b3c4d",
        "vol-0123456789abcdef01", "vol-١a2b3c4d", "VOL-1a2b3c4d", " vol-1a2b3c4d", "vol-é1a2b3c4",
    ])
    func `anything else is not a volume id`(text: String) { #expect(VolumeID(text) == nil) }

    @Test func `the NVMe serial is the id without its dash`() {
        #expect(VolumeID("vol-0123456789abcdef0")?.nvmeSerial == "vol0123456789abcdef0")
    }

    @Test func `instance ids are distinguished from volume ids`() {
        #expect(InstanceID("i-0123456789abcdef0") != nil)
        #expect(InstanceID("vol-0123456789abcdef0") == nil)
    }
}

@Suite struct TimeTests {
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00Z"), (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"), (1_440_938_160, "2015-08-30T12:36:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"), (-1, "1969-12-31T23:59:59Z"),
        ] as [(Int64, String)])
    func `a time is written as RFC 3339 says`(seconds: Int64, text: String) {
        #expect(CivilTime(unixSeconds: seconds).rfc3339 == text)
    }

    @Test func `instants saturate at both ends`() {
        #expect(Instant(nanoseconds: .max) + .seconds(1) == Instant(nanoseconds: .max))
        #expect(Instant(nanoseconds: 5) + .seconds(-1) == Instant(nanoseconds: 0))
        #expect(Instant(nanoseconds: 5) - Instant(nanoseconds: 7) == .nanoseconds(-2))
    }

    @Test func `an operator reads what failed, why, and what to do`() {
        let error = OperationError(.device, doing: "a", found: "b", advice: "c")
        #expect("\(error)" == "cannot a: b; c")
    }
}
