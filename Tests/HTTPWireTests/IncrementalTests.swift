import Base
import HTTPWire
import ParserChecks
import TestSupport
import Testing

let samples = [
    dockerRequest,
    "\r\nGET http://a/b?c HTTP/1.1\r\nHost: b\r\n\r\n" + dockerRequest,
    chunked("1;x=\"y\"\r\na\r\n0A\r\nbcdefghijk\r\n0\r\nT: 1\r\n\r\n") + dockerRequest,
    framed("Content-Length: 3\r\nExpect: 100-continue\r\n") + "abc" + "GET / HTTP/1.0\r\n\r\n",
    dockerRequest + "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
    chunked("1\r\na\r\n0\r\n Bad: 1\r\n\r\n"),
    framed("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n",
]

@Suite struct IncrementalTests {
    @Test(arguments: samples)
    func `every split of a message gives the same result`(text: String) {
        let bytes = Array(text.utf8)
        let whole = parse(bytes)
        var bufferedMax = 0
        for cut in 0...bytes.count {
            #expect(parse(pieces(bytes, cutAt: [cut]), bufferedMax: &bufferedMax) == whole)
        }
        let everywhere = Array(1..<bytes.count)
        #expect(parse(pieces(bytes, cutAt: everywhere), bufferedMax: &bufferedMax) == whole)
    }

    @Test func `every pair of splits of Docker's request gives the same result`() {
        let bytes = Array(dockerRequest.utf8)
        let whole = parse(bytes)
        var bufferedMax = 0
        var differing = 0
        for first in 0..<bytes.count {
            for second in stride(from: first, to: bytes.count, by: 3) {
                let outcome = parse(
                    pieces(bytes, cutAt: [first, second]), bufferedMax: &bufferedMax)
                if outcome != whole { differing += 1 }
            }
        }
        #expect(differing == 0)
    }

    /// Mutates valid and invalid messages: nothing may trap, memory stays within the limits, and
    /// splitting a message makes no difference.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `mutated messages have the same result whole and in pieces`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var refused = 0
        var differing: [[UInt8]] = []
        for _ in 0..<10_000 {
            let bytes = mutated(&random)
            let whole = parse(bytes)
            if case .refused = whole { refused += 1 }
            var bufferedMax = 0
            let cuts = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                Int.random(in: 0...bytes.count, using: &random)
            }
            let split = parse(pieces(bytes, cutAt: cuts.sorted()), bufferedMax: &bufferedMax)
            if split != whole { differing.append(bytes) }
        }
        #expect(differing.isEmpty, "seed \(seed): \(differing.first ?? [])")
        // Both outcomes must be frequent, otherwise the mutations test little.
        #expect((2_000...9_500).contains(refused), "\(refused) of 10000 refused")
    }

    @Test func `a client that never ends its message is bounded`() {
        let endless: [(start: String, more: String)] = [
            ("", "\r\n"), ("", "x"), ("GET / HTTP/1.1\r\n", "A: b\r\n"),
            ("GET / HTTP/1.1\r\nA: ", "b"),
            (chunked(""), "1\r\na\r\n"), (chunked("1;"), "x"), (chunked("0\r\n"), "A: b\r\n"),
            (chunked("0\r\nA:"), "b"), (chunked(""), "0"),
        ]
        for (start, more) in endless {
            var bufferedMax = 0
            let most = 8 * Limit.requestBodyMax / more.utf8.count
            let all = [start] + Array(repeating: more, count: most)
            let outcome = parse(all.map { Array($0.utf8)[...] }, bufferedMax: &bufferedMax)
            if case .requests = outcome { Issue.record("\(start)\(more)… was never refused") }
            #expect(bufferedMax <= Limit.requestHeadMax + more.utf8.count)
        }
    }
}

private let fragments: [[UInt8]] = [
    "\r\n", "\n", "\r", "\0", " ", "\t", ":", ",", ";", "\r\n\r\n", "0\r\n\r\n", "1\r\na\r\n",
    "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "Host: a\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n", "HTTP/1.1", "HTTP/1.0", "99999999999999999999", "ffffffffffffffff",
].map { Array($0.utf8) }

func mutated(_ random: inout SeededGenerator) -> [UInt8] {
    var bytes = Array((samples.randomElement(using: &random) ?? "").utf8)
    if Bool.random(using: &random) {
        bytes += Array((samples.randomElement(using: &random) ?? "").utf8)
    }
    for _ in 0..<Int.random(in: 0...3, using: &random) {
        let at = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 2: bytes.insert(UInt8.random(in: 0...255, using: &random), at: at)
        case 3: bytes.remove(at: at)
        case 4:
            bytes.insert(contentsOf: fragments.randomElement(using: &random) ?? [], at: at)
        default:
            let end = Int.random(in: at...bytes.count, using: &random)
            bytes.insert(contentsOf: bytes[at..<end], at: at)
        }
        if bytes.isEmpty { bytes = [0] }
    }
    return bytes
}
