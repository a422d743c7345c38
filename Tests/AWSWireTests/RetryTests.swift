import Base
import Testing

@testable import AWSWire

private func refused(_ code: String, status: Int = 400, serverTime: Int64? = nil) -> Retry.Failure {
    .refused(
        .refused(code: code, message: "m", requestID: "r"), status: status, serverTime: serverTime)
}

private let throttled = refused("RequestLimitExceeded", status: 503)
private let unavailable = refused("Unavailable", status: 503)
private let lost = Retry.Failure.unanswered(reason: "reset", mayHaveReached: true)
private let unreached = Retry.Failure.unanswered(reason: "refused", mayHaveReached: false)

extension Retry {
    fileprivate mutating func after(
        _ failure: Failure, random: Double = 0.5, remaining: Duration = .seconds(60)
    ) -> Decision {
        decide(failure, signedAt: 1000, random: random, remaining: remaining)
    }
}

extension Retry.Decision {
    fileprivate var delay: Duration? { if case .again(let delay) = self { delay } else { nil } }

    fileprivate var failure: EC2Failure? {
        if case .fail(let failure) = self { failure } else { nil }
    }
}

@Suite struct RetryTests {
    @Test(arguments: [true, false])
    func `throttling is retried until the deadline, with growing pauses`(_ isRepeatable: Bool) {
        var retry = Retry(isRepeatable: isRepeatable)
        var ceiling = Limit.throttledDelayMin
        for _ in 0..<40 {
            #expect(retry.after(throttled).delay == ceiling / 2)
            ceiling = min(ceiling * 2, Limit.retryDelayMax)
        }
        let last = retry.after(throttled, random: 0.999, remaining: .seconds(1))
        #expect(last.failure?.code == "RequestLimitExceeded")
    }

    @Test(arguments: [true, false])
    func `the operator's limit on attempts applies to throttling`(_ isRepeatable: Bool) {
        var retry = Retry(isRepeatable: isRepeatable, attemptsMax: 2)
        #expect(retry.after(throttled).delay != nil)
        #expect(retry.after(throttled).failure?.code == "RequestLimitExceeded")
    }

    @Test(arguments: [unavailable, lost, .malformed(reason: "cut"), refused("502", status: 502)])
    func `a read is retried, a few times`(_ outcome: Retry.Failure) {
        var retry = Retry(isRepeatable: true)
        for _ in 1..<Limit.attemptsMax { #expect(retry.after(outcome).delay != nil) }
        #expect(retry.after(outcome).failure != nil)
    }

    @Test(arguments: [unavailable, lost, .malformed(reason: "cut"), refused("502", status: 502)])
    func `a change whose outcome is unknown is not repeated`(_ outcome: Retry.Failure) {
        var retry = Retry(isRepeatable: false)
        guard case .unanswered(_, mayHaveApplied: true)? = retry.after(outcome).failure else {
            Issue.record("the caller must learn that the change may have been applied")
            return
        }
    }

    @Test func `a change that did not reach EC2 is repeated`() {
        var retry = Retry(isRepeatable: false)
        for _ in 1..<Limit.attemptsMax { #expect(retry.after(unreached).delay != nil) }
        #expect(
            retry.after(unreached).failure == .unanswered(reason: "refused", mayHaveApplied: false))
    }

    @Test func `a tag that an earlier attempt may have written is reported`() {
        var retry = Retry(isRepeatable: true, attemptsMax: 2)
        #expect(retry.after(lost).delay != nil)
        #expect(
            retry.after(unreached).failure == .unanswered(reason: "refused", mayHaveApplied: true))
    }

    @Test(arguments: ["VolumeInUse", "UnauthorizedOperation", "InvalidVolume.NotFound"])
    func `a refusal is final`(_ code: String) {
        var retry = Retry(isRepeatable: true)
        #expect(retry.after(refused(code)).failure?.code == code)
    }

    @Test func `the jitter spreads over the whole pause`() {
        for (random, expected) in [(0.0, Duration.zero), (0.9, Limit.retryDelayMin * 0.9)] {
            var retry = Retry(isRepeatable: true)
            let delay = retry.after(lost, random: random).delay ?? .seconds(9)
            #expect(abs(delay.nanoseconds - expected.nanoseconds) < 10)
        }
    }

    @Test func `no pause begins that the deadline would end`() {
        var retry = Retry(isRepeatable: true)
        #expect(retry.after(lost, remaining: .milliseconds(1)).failure != nil)
    }

    @Test(arguments: [
        "RequestExpired", "SignatureDoesNotMatch", "AuthFailure", "InvalidClientTokenId",
    ])
    func `a skewed clock is corrected once`(_ code: String) {
        var retry = Retry(isRepeatable: false)
        let outcome = refused(code, status: 403, serverTime: 1000 - 3600)
        #expect(retry.after(outcome) == .correctClock(serverTime: 1000 - 3600))
        #expect(retry.after(outcome) != .correctClock(serverTime: 1000 - 3600))
    }

    @Test func `a correct clock is not blamed for a wrong key`() {
        for serverTime in [nil, 1010] as [Int64?] {
            var retry = Retry(isRepeatable: true)
            let decision = retry.after(
                refused("SignatureDoesNotMatch", status: 403, serverTime: serverTime))
            #expect(decision.failure?.code == "SignatureDoesNotMatch")
        }
    }

    @Test(arguments: [
        "ExpiredToken", "ExpiredTokenException", "RequestExpired", "AuthFailure",
        "InvalidClientTokenId",
    ])
    func `credentials that are no longer valid are refreshed once`(_ code: String) {
        var retry = Retry(isRepeatable: false, attemptsMax: 1)
        let refusal = EC2Failure.refused(code: code, message: "m", requestID: "r")
        #expect(retry.after(refused(code)) == .refreshCredentials(refusal))
        #expect(retry.after(refused(code)).failure?.code == code)
    }
}
