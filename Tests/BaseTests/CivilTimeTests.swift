import Base
import Testing

@Suite struct CivilTimeTests {
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "2000-02-29T00:00:00Z", "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "2100-02-28T23:59:59Z", "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
            (-1, "1969-12-31T23:59:59Z", "Wed, 31 Dec 1969 23:59:59 GMT"),
        ] as [(Int64, String, String)])
    func `a time is written and read in every format`(seconds: Int64, rfc: String, http: String) {
        let time = CivilTime(unixSeconds: seconds)
        #expect(time.rfc3339 == rfc)
        #expect(time.httpDate == http)
        #expect(time.unixSeconds == seconds)
        #expect(CivilTime(rfc3339: rfc) == time)
        #expect(CivilTime(httpDate: http) == time)
    }

    @Test func `the basic form is SigV4's`() {
        #expect(CivilTime(unixSeconds: 1_440_938_160).basic == "20150830T123600Z")
    }

    @Test func `every day of a calendar cycle comes back`() {
        var seconds: Int64 = 0
        while seconds < 400 * 31_556_952 {
            #expect(
                CivilTime(rfc3339: CivilTime(unixSeconds: seconds).rfc3339)?.unixSeconds == seconds)
            seconds += 86_400 * 7 + 12_345
        }
    }

    @Test func `an offset is applied, a fraction dropped`() {
        #expect(
            CivilTime(rfc3339: "2026-01-01T02:00:00.123456+02:00")?.rfc3339
                == "2026-01-01T00:00:00Z")
        #expect(CivilTime(rfc3339: "2025-12-31T23:30:00-00:30")?.rfc3339 == "2026-01-01T00:00:00Z")
    }

    @Test(arguments: [
        "", "2026-01-01", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00", "2026-01-01T00:00:00Zx", "2026-01-01T00:00:00.Z",
        "0000-01-01T00:00:00Z",
        "+026-01-01T00:00:00Z",
    ])
    func `text that is not a time is rejected`(_ text: String) {
        #expect(CivilTime(rfc3339: text) == nil)
        #expect(CivilTime(httpDate: text) == nil)
    }
}
