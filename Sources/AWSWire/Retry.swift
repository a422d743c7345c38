package import Base

/// Decides, for one operation, what to do after each failed attempt.
///
/// Pure: the caller provides the clock and the random numbers, and does the waiting.
package struct Retry: Sendable {
    /// How an attempt failed.
    package enum Failure: Error, Sendable, CustomStringConvertible {
        /// EC2 answered with an error; `serverTime` is its Date header, in Unix seconds.
        case refused(EC2Failure, status: Int, serverTime: Int64?)
        /// No response; `mayHaveReached` says that the request was sent, at least in part.
        case unanswered(reason: String, mayHaveReached: Bool)
        /// A response that says that the call succeeded, but cannot be parsed further.
        case malformed(reason: String)

        /// Whether EC2 throttled the call, that is, rejected it because of the request rate,
        /// without executing it.
        package var isThrottling: Bool {
            guard case .refused(let refusal, let status, _) = self else { return false }
            return refusal.isThrottling || status == 429
        }

        package var description: String {
            switch self {
            case .refused(let failure, _, _): "\(failure)"
            case .unanswered(let reason, _), .malformed(let reason): reason
            }
        }
    }

    package enum Decision: Sendable, Equatable {
        case fail(EC2Failure)
        case again(after: Duration)
        /// Sign with fresh credentials, at once; fail with this error if there are only the
        /// rejected ones.
        case refreshCredentials(EC2Failure)
        /// Sign with EC2's time, at once.
        case correctClock(serverTime: Int64)
    }

    /// False for calls that must not be applied twice: they are repeated only if they were
    /// certainly not applied.
    private let isRepeatable: Bool
    /// The operator's limit on attempts, for every kind of failure. Without it, a throttled call is
    /// retried until the deadline, because the account's request budget refills; after any other
    /// failure there are `Limit.attemptsMax` attempts.
    private let attemptsMax: Int?

    private var attempts = 0
    private var throttled = 0
    private var broken = 0
    private var mayHaveApplied = false
    private var lastThrottling: EC2Failure?
    private var hasRefreshed = false
    private var hasCorrectedClock = false

    package init(isRepeatable: Bool, attemptsMax: Int? = nil) {
        self.isRepeatable = isRepeatable
        self.attemptsMax = attemptsMax
    }

    /// - Parameters:
    ///   - signedAt: the time in the request's signature, in Unix seconds.
    ///   - random: the jitter, in 0..<1.
    ///   - remaining: the time to the operation's deadline.
    package mutating func decide(
        _ failure: Failure, signedAt: Int64, random: Double, remaining: Duration
    ) -> Decision {
        attempts += 1
        switch failure {
        case .refused(let refusal, _, _) where failure.isThrottling:
            return retryThrottled(refusal, random, remaining)
        case .refused(let refusal, let status, let serverTime):
            return decide(
                refusal, status, serverTime: serverTime, signedAt: signedAt, random, remaining)
        case .unanswered(let reason, let mayHaveReached):
            mayHaveApplied = mayHaveApplied || mayHaveReached
            let silence = EC2Failure.unanswered(reason: reason, mayHaveApplied: mayHaveApplied)
            guard isRepeatable || !mayHaveReached else { return .fail(silence) }
            return retryBroken(silence, random, remaining)
        case .malformed(let reason):
            guard isRepeatable else {
                return .fail(.unanswered(reason: reason, mayHaveApplied: true))
            }
            return retryBroken(.malformed(reason: reason), random, remaining)
        }
    }

    private mutating func decide(
        _ failure: EC2Failure, _ status: Int, serverTime: Int64?, signedAt: Int64, _ random: Double,
        _ remaining: Duration
    ) -> Decision {
        let code = failure.code ?? ""
        if clockSkewCodes.contains(code), !hasCorrectedClock, let serverTime,
            abs(serverTime - signedAt) >= Limit.clockSkewMax.components.seconds
        {
            hasCorrectedClock = true
            return .correctClock(serverTime: serverTime)
        }
        if staleCredentialsCodes.contains(code), !hasRefreshed {
            hasRefreshed = true
            return .refreshCredentials(failure)
        }
        guard status >= 500 || transientCodes.contains(code) else { return .fail(failure) }
        guard isRepeatable else {
            return .fail(.unanswered(reason: "\(failure)", mayHaveApplied: true))
        }
        return retryBroken(failure, random, remaining)
    }

    private mutating func retryThrottled(
        _ failure: EC2Failure, _ random: Double, _ remaining: Duration
    ) -> Decision {
        lastThrottling = failure
        if let attemptsMax, attempts >= attemptsMax { return .fail(failure) }
        throttled += 1
        return wait(
            failure, from: Limit.throttledDelayMin, doublings: throttled - 1, random, remaining)
    }

    /// The error if throttling leaves no time for another attempt: EC2's own error, if it answered
    /// this operation with one.
    package func outOfTime(_ reason: String) -> EC2Failure {
        lastThrottling ?? .unanswered(reason: reason, mayHaveApplied: mayHaveApplied)
    }

    private mutating func retryBroken(
        _ failure: EC2Failure, _ random: Double, _ remaining: Duration
    ) -> Decision {
        broken += 1
        if let attemptsMax, attempts >= attemptsMax { return .fail(failure) }
        if attemptsMax == nil, broken >= Limit.attemptsMax { return .fail(failure) }
        return wait(failure, from: Limit.retryDelayMin, doublings: broken - 1, random, remaining)
    }

    /// Exponential back-off with full jitter; fails at once if the deadline would end the wait.
    private func wait(
        _ failure: EC2Failure, from first: Duration, doublings: Int, _ random: Double,
        _ remaining: Duration
    ) -> Decision {
        precondition((0..<1).contains(random), "the jitter is a fraction")
        let ceiling = min(Limit.retryDelayMax, first * (1 << min(doublings, 20)))
        let delay = Duration.nanoseconds(Int64(Double(ceiling.nanoseconds) * random))
        return delay < remaining ? .again(after: delay) : .fail(failure)
    }
}

// Sources: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, and the lists of
// docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html.

/// Transient errors, although their status is 4xx.
private let transientCodes: Set<String> = [
    "ConcurrentTagAccess", "RequestTimeout", "RequestTimeoutException",
]

/// Codes that a wrong clock can cause: the signature is then too old, too new, or rejected.
private let clockSkewCodes: Set<String> = [
    "RequestExpired", "SignatureDoesNotMatch", "AuthFailure", "InvalidClientTokenId",
    "RequestTimeTooSkewed", "RequestInTheFuture", "InvalidSignatureException",
]

/// Codes for credentials that were valid once: EC2 also uses RequestExpired for an expired session,
/// and the other codes for credentials of a role that was recreated.
private let staleCredentialsCodes: Set<String> = [
    "ExpiredToken", "ExpiredTokenException", "RequestExpired", "AuthFailure",
    "InvalidClientTokenId",
]
