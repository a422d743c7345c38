import ArgumentParser
import Glibc
import Simulation

/// Runs seeded lives of volumes on simulated hosts, and stops at the first that breaks an
/// invariant.
@main struct LifeSimulator: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "life-simulator")

    @Option(help: "The first life's seed.") var seed: UInt64 = 1
    @Option(help: "How many lives, each with the next seed.") var runs: UInt64 = 20_000
    @Option(parsing: .upToNextOption, help: "More seeds, played before.") var also: [UInt64] = []
    @Option(help: "A fault to plant.") var plant: String?
    @Flag(help: "Print everything that happens in the first life.") var tell = false
    @Flag(help: "Go on after a failure: list all that broke, and count them by invariant.")
    var count = false

    func run() throws {
        var fault: PlantedFault?
        if let plant {
            fault = PlantedFault(rawValue: plant)
            if fault == nil {
                let known = PlantedFault.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("no such fault; there are \(known)")
            }
        }
        if tell {
            let life = LifeWorld(seed: seed, fault: fault, isTold: true)
            let failure = life.play()
            for line in life.story { print(line) }
            print("broken: \(failure?.invariant ?? "nothing")")
            return
        }
        print("seeds \(seed) to \(seed + runs - 1)")
        let start = ContinuousClock.now
        var failures: [String: (count: Int, first: UInt64)] = [:]
        var taskSwitches = 0
        var digest: UInt64 = 0
        let seeds = also + Array(seed..<seed + runs)
        for seed in seeds {
            let life = LifeWorld(seed: seed, fault: fault)
            let failure = life.play()
            taskSwitches += life.taskSwitches
            digest = (digest << 1 | digest >> 63) ^ life.digest
            guard let failure else { continue }
            failures[failure.invariant, default: (0, seed)].count += 1
            if count {
                print("seed \(seed) broke: \(failure.invariant): \(failure.detail)")
            } else {
                // The same life again, this time with its events.
                let told = LifeWorld(seed: seed, fault: fault, isTold: true).play()
                print(told ?? failure)
                throw ExitCode.failure
            }
        }
        let lives = Double(seeds.count)
        let perSecond = Int(lives / (start.duration(to: .now) / .seconds(1)))
        let perCPUSecond = Int(lives / (cpuTime() / .seconds(1)))
        print(
            "\(seeds.count) lives, \(perSecond) a second, \(perCPUSecond) a second of CPU time")
        // A change of the source that leaves the digest alone has changed no step of any life.
        print(
            "\(taskSwitches / seeds.count) task switches a life, digest of all steps "
                + String(digest, radix: 16))
        for (invariant, found) in failures.sorted(by: { $0.value.count > $1.value.count }) {
            print("\(found.count) broke, first seed \(found.first): \(invariant)")
        }
        if !failures.isEmpty { throw ExitCode.failure }
    }
}

/// The CPU time that this process has used, regardless of other work on the machine.
private func cpuTime() -> Duration {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
}
