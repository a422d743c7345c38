package import Base

/// Keeps this host's calls to EC2 below the rate that EC2 allows: a token bucket for each action.
///
/// EC2 has such a bucket for each action of an account in a Region, which all its hosts draw on.
/// The ones here begin with the same size, so that one host alone never asks for more than it can
/// have. Where EC2 throttles all the same, other hosts are asking too: the rate is halved, what was
/// saved up is dropped, and each answer restores a fiftieth. Hosts that all do so come to share the
/// account's budget evenly.
///
/// Pure: the clock and the waiting are the caller's.
package struct RequestBudget: Sendable {
    private struct Bucket {
        let size: Size
        /// Tokens a second.
        var rate: Double
        /// Below zero while calls wait for tokens that are still to come.
        var tokens: Double
        var filledAt: Instant
        /// When the rate was halved last.
        var halvedAt: Instant?

        mutating func fill(until now: Instant) {
            let seconds = max(0, (now - filledAt).milliseconds / 1000)
            tokens = min(Double(size.burst), tokens + seconds * rate)
            filledAt = now
        }
    }

    private var buckets: [String: Bucket] = [:]

    package init() {}

    /// Takes a token for a call. Returns how long the call has to wait before it is sent; nil, and
    /// takes none, where that is longer than `patience`.
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

    /// Learns from EC2's answer to a call that was sent at `sent`.
    ///
    /// The calls that were on their way together are throttled together: that halves the rate once,
    /// and what they tell later is of the rate that was.
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

    /// Calls a second that the action may make now.
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
    /// An account's bucket in one Region.
    ///
    /// Source: docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html; a Describe is one
    /// with a filter.
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
