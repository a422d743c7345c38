/// A generator with a seed (SplitMix64), so that a failing run can be replayed.
package struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// One to four edits: a byte changed, removed, inserted, a piece repeated, the end cut.
    package mutating func mutated(_ sample: [UInt8]) -> [UInt8] {
        var bytes = sample
        for _ in 0..<Int.random(in: 1...4, using: &self) where !bytes.isEmpty {
            let at = Int.random(in: 0..<bytes.count, using: &self)
            switch Int.random(in: 0..<5, using: &self) {
            case 0: bytes[at] = UInt8.random(in: 0...255, using: &self)
            case 1: bytes.remove(at: at)
            case 2:
                bytes.insert(
                    Array("<>&;/![]\0\u{7F}".utf8).randomElement(using: &self) ?? 0, at: at)
            case 3: bytes.insert(contentsOf: bytes[at...].prefix(16), at: at)
            default: bytes.removeSubrange(at...)
            }
        }
        return bytes
    }
}
