import Simulation
import Testing

/// Lives of volumes on simulated hosts. `make sim SEED=n RUNS=1` replays one that fails.
@Suite struct LifeTests {
    /// Seeds that once broke an invariant, even if they now play something else. Those of release
    /// builds, which switch tasks less often, are in Tests/Lives.
    static let failedOnce: [UInt64] = [
        4, 31, 45, 76, 123, 266, 494, 622, 990, 1202, 1470, 1539, 1657, 1936, 2004, 2050, 3631,
        329, 1079, 4368, 4908, 8777, 12714, 19709, 572, 598, 2047, 2873,
    ]

    @Test func `a life leaves nothing behind, whatever fails in it`() {
        for seed in Self.failedOnce + Array(1...400) {
            if let failure = LifeWorld(seed: seed).play() { Issue.record("\(failure)") }
        }
    }

    @Test func `a seed determines one life`() {
        for seed in UInt64(1)...40 {
            let first = LifeWorld(seed: seed)
            let second = LifeWorld(seed: seed)
            _ = first.play()
            _ = second.play()
            #expect(first.digest == second.digest, "seed \(seed)")
        }
    }

    @Test func `different seeds give different lives`() {
        let digests = (UInt64(1)...40).map { seed in
            let life = LifeWorld(seed: seed)
            _ = life.play()
            return life.digest
        }
        #expect(Set(digests).count == digests.count)
    }

    @Test func `a failure reports its seed, the invariant and the last events`() throws {
        let life = LifeWorld(seed: 1, fault: .detachDropped, isTold: true)
        let failure = try #require(life.play())
        #expect(failure.seed == 1)
        #expect(failure.description.contains("seed 1: broken: no attachment is left: host "))
        #expect(failure.events.contains { $0.contains("detachVolume") })
    }

    /// A fault that the simulation does not find here would not be found in the manager either.
    @Test(arguments: PlantedFault.allCases)
    func `a planted fault is found`(fault: PlantedFault) {
        let budget = UInt64(3000)
        let found = (1...budget).first { LifeWorld(seed: $0, fault: fault).play() != nil }
        #expect(found != nil, "\(fault) is not found in \(budget) lives")
    }
}
