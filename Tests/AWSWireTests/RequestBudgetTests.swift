import AWSWire
import Base
import Testing

/// One or more hosts that share an account's bucket in EC2, in virtual time.
private struct Account {
    var level = 50.0
    let perSecond: Double
    private var filledAt = Instant(nanoseconds: 0)

    init(perSecond: Double) { self.perSecond = perSecond }

    mutating func admits(at now: Instant) -> Bool {
        level = min(50, level + (now - filledAt).milliseconds / 1000 * perSecond)
        filledAt = now
        if level < 1 { return false }
        level -= 1
        return true
    }
}

private func at(_ seconds: Double) -> Instant { Instant(nanoseconds: UInt64(seconds * 1e9)) }

@Suite struct RequestBudgetTests {
    private let patience = Duration.seconds(100)

    @Test(arguments: ["AttachVolume", "DetachVolume", "CreateTags", "DescribeVolumes"])
    func `50 calls at once do not wait`(_ action: String) {
        var budget = RequestBudget()
        for _ in 0..<50 {
            #expect(budget.take(for: action, at: at(1), patience: patience) == .zero)
        }
    }

    @Test func `beyond the burst calls go out at the rate, in order`() {
        var budget = RequestBudget()
        for _ in 0..<50 { _ = budget.take(for: "AttachVolume", at: at(1), patience: patience) }
        let waits = (0..<3).map { _ in
            budget.take(for: "AttachVolume", at: at(1), patience: patience)
        }
        #expect(waits == [.milliseconds(200), .milliseconds(400), .milliseconds(600)])
        #expect(budget.take(for: "DescribeVolumes", at: at(1), patience: patience) == .zero)
    }

    @Test func `a call that would wait too long takes no token`() {
        var budget = RequestBudget()
        for _ in 0..<50 { _ = budget.take(for: "AttachVolume", at: at(1), patience: patience) }
        for _ in 0..<100 {
            #expect(
                budget.take(for: "AttachVolume", at: at(1), patience: .milliseconds(200)) == nil)
        }
        #expect(
            budget.take(for: "AttachVolume", at: at(1), patience: .seconds(1))
                == .milliseconds(200))
    }

    @Test func `throttling halves the rate and drops the saved tokens`() {
        var budget = RequestBudget()
        budget.note("AttachVolume", isThrottled: true, sentAt: at(1), at: at(2))
        #expect(budget.rate(of: "AttachVolume") == 2.5)
        #expect(
            budget.take(for: "AttachVolume", at: at(2), patience: patience) == .milliseconds(400))
        #expect(budget.rate(of: "DetachVolume") == 5)
    }

    @Test func `calls that were in progress together halve the rate once`() {
        var budget = RequestBudget()
        for _ in 0..<28 {
            budget.note("AttachVolume", isThrottled: true, sentAt: at(1), at: at(2))
        }
        budget.note("AttachVolume", isThrottled: false, sentAt: at(1), at: at(2.1))
        #expect(budget.rate(of: "AttachVolume") == 2.5)
        budget.note("AttachVolume", isThrottled: true, sentAt: at(2), at: at(3))
        #expect(budget.rate(of: "AttachVolume") == 1.25)
    }

    @Test func `calls continue however often EC2 throttles`() {
        var budget = RequestBudget()
        for second in 1..<100 {
            budget.note(
                "AttachVolume", isThrottled: true, sentAt: at(Double(second)),
                at: at(Double(second)))
        }
        #expect(budget.rate(of: "AttachVolume") == Limit.requestRateMin)
    }

    @Test func `responses restore the rate, and time restores the tokens`() {
        var budget = RequestBudget()
        budget.note("AttachVolume", isThrottled: true, sentAt: at(1), at: at(1))
        for _ in 0..<24 {
            budget.note("AttachVolume", isThrottled: false, sentAt: at(2), at: at(2))
        }
        #expect(budget.rate(of: "AttachVolume") < 5)
        for _ in 0..<100 {
            budget.note("AttachVolume", isThrottled: false, sentAt: at(2), at: at(2))
        }
        #expect(budget.rate(of: "AttachVolume") == 5)
        for _ in 0..<50 {
            #expect(budget.take(for: "AttachVolume", at: at(60), patience: patience) == .zero)
        }
    }

    @Test func `with a slower bucket than documented, a host is rarely throttled`() {
        let (sent, throttled) = play(hosts: 1, account: Account(perSecond: 1), seconds: 300)
        #expect(sent[0] - throttled >= 250)
        #expect(throttled < 60)
    }

    @Test func `hosts that share an account share its rate evenly`() {
        let (sent, throttled) = play(hosts: 4, account: Account(perSecond: 5), seconds: 300)
        let served = sent.reduce(0, +) - throttled
        #expect(served >= 1200)
        #expect(Double(throttled) < Double(served) * 0.15)
        #expect((sent.min() ?? 0) * 2 > (sent.max() ?? 0))
    }

    /// Hosts that always have a call to make: how many each sent, and how many were throttled.
    private func play(
        hosts: Int, account: Account, seconds: Double
    ) -> (sent: [Int], throttled: Int) {
        var account = account
        var budgets = [RequestBudget](repeating: RequestBudget(), count: hosts)
        var next = (0..<hosts).map { at(1 + Double($0) * 0.01) }
        var (sent, throttled) = ([Int](repeating: 0, count: hosts), 0)
        while let host = next.indices.min(by: { next[$0] < next[$1] }), next[host] < at(seconds) {
            let now = next[host]
            let wait = budgets[host].take(for: "AttachVolume", at: now, patience: patience)
            let sentAt = now + (wait ?? .seconds(1))
            let isThrottled = !account.admits(at: sentAt)
            sent[host] += 1
            throttled += isThrottled ? 1 : 0
            next[host] = sentAt + .milliseconds(50)
            budgets[host].note(
                "AttachVolume", isThrottled: isThrottled, sentAt: sentAt, at: next[host])
        }
        return (sent, throttled)
    }
}
