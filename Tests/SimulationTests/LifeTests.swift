import Simulation
import Testing

@Suite struct LifeTests {
    @Test func `a seed tells one life only`() {
        for seed in UInt64(1)...40 {
            let first = LifeWorld(seed: seed)
            let second = LifeWorld(seed: seed)
            _ = first.play()
            _ = second.play()
            #expect(first.digest == second.digest, "seed \(seed)")
        }
    }
}
