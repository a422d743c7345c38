package import Base

/// Keeps this host's calls to EC2 below the rate that EC2 allows, with a token bucket per action.
///
/// EC2 has such a bucket per action, account and Region, which all hosts share. The buckets here
/// start with the same size, so that a single host never exceeds it. If EC2 throttles nevertheless,
/// other hosts are calling too: then the rate is halved, saved tokens are dropped, and each
/// successful response restores a fiftieth of the rate. Hosts that all do this come to share the
/// account's budget evenly.
///
/// Pure: the caller provides the clock and does the waiting.
package struct RequestBudget: Sendable {
    private struct Bucket {
        let size: Size
        /// Tokens per second.
        var rate: Double
        /// Below zero while calls wait for tokens that are still to come.
        var tokens: Double
        var filledAt: Instant
        /// When the rate was last halved.
        var halvedAt: Instant?

        mutating func fill(until now: Instant) {
            let seconds = max(0, (now - filledAt).milliseconds / 1000)
            tokens = min(Double(size.burst), tokens + seconds * rate)
            filledAt = now
        }
    }

    private var buckets: [String: Bucket] = [:]

    package init() {}

    /// Takes a token for a call. Returns how long the call must wait before it is sent. If that is
    /// longer than `patience`, takes no token and returns nil.
    package mutating func take(
        for action: String, at now: Instant, patience: Duration
    ) -> Duration? {
        var bucket = bucket(of: action, at: now)
        bucket.fill(until: now)
        defer { buckets[action] = bucket }
        let missing = max(0, 1 - bucket.tokens)
        let wait = Duration.nanoseconds(Int64(missing / bucket.rate * 1e9))
        guard wait == .zero || wait < patience else { return nil }
        bucket.tokens -= 1
        return wait
    }

    /// Adapts to EC2's response to a call that was sent at `sent`.
    ///
    /// Calls that were in progress at the same time are throttled together. This halves the rate
    /// only once: their later responses refer to the rate before.
    package mutating func note(
        _ action: String, isThrottled: Bool, sentAt sent: Instant, at now: Instant
    ) {
        var bucket = bucket(of: action, at: now)
        guard bucket.halvedAt.map({ sent >= $0 }) ?? true else { return }
        bucket.fill(until: now)
        if isThrottled {
            bucket.rate = max(Limit.requestRateMin, bucket.rate / 2)
            bucket.tokens = min(0, bucket.tokens)
            bucket.halvedAt = now
        } else {
            let step = bucket.size.perSecond * Limit.requestRateStep
            bucket.rate = min(bucket.size.perSecond, bucket.rate + step)
        }
        buckets[action] = bucket
    }

    /// The current rate of the action, in calls per second.
    package func rate(of action: String) -> Double {
        buckets[action]?.rate ?? Size(of: action).perSecond
    }

    private func bucket(of action: String, at now: Instant) -> Bucket {
        if let bucket = buckets[action] { return bucket }
        let size = Size(of: action)
        return Bucket(
            size: size, rate: size.perSecond, tokens: Double(size.burst), filledAt: now)
    }
}

extension RequestBudget {
    /// The size of an account's bucket in one Region.
    ///
    /// Source: docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html; Describe calls are
    /// assumed to use a filter.
    private struct Size {
        var burst: Int
        var perSecond: Double

        init(of action: String) {
            if action.hasPrefix("Describe") {
                (burst, perSecond) = (100, 20)
            } else if action.hasSuffix("Tags") {
                (burst, perSecond) = (100, 10)
            } else {
                (burst, perSecond) = (50, 5)
            }
        }
    }
}
