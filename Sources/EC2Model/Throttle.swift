import Base

/// A token bucket with at most `burst` tokens, refilled at `perSecond`.
package struct Bucket: Sendable, Equatable {
    package var burst: Double
    package var perSecond: Double

    package init(burst: Double, perSecond: Double) {
        self.burst = burst
        self.perSecond = perSecond
    }
}

/// EC2's limits on the request rate of one account in one Region.
///
/// Source: docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html.
package struct Throttle: Sendable {
    /// False disables throttling.
    package var isEnabled = true
    private var buckets: [String: Bucket] = [
        Name.nonMutating: Bucket(burst: 100, perSecond: 20),
        Name.unfiltered: Bucket(burst: 50, perSecond: 10),
        Name.mutating: Bucket(burst: 50, perSecond: 5),
        "CreateVolume": Bucket(burst: 100, perSecond: 5),
        "DeleteVolume": Bucket(burst: 100, perSecond: 5),
        "CreateSnapshot": Bucket(burst: 100, perSecond: 5),
        "DeleteSnapshot": Bucket(burst: 100, perSecond: 5),
        "CreateTags": Bucket(burst: 100, perSecond: 10),
        "DeleteTags": Bucket(burst: 100, perSecond: 10),
    ]
    private var levels: [String: (tokens: Double, at: Instant)] = [:]

    /// The default buckets, for actions without their own.
    package enum Name {
        package static let nonMutating = "non-mutating"
        package static let mutating = "mutating"
        package static let unfiltered = "unfiltered"
    }

    package init() {}

    /// Sets the bucket of an action, or of a `Name`, and fills it.
    package mutating func set(_ bucket: Bucket, for name: String) {
        buckets[name] = bucket
        levels = levels.filter { !$0.key.hasSuffix("|" + name) }
    }

    /// Takes a token; false if there is none. `unfiltered`: a Describe without filter or page.
    mutating func admit(_ action: String, unfiltered: Bool, at now: Instant) -> Bool {
        guard isEnabled else { return true }
        let name = bucketName(action, unfiltered: unfiltered)
        guard let bucket = buckets[name] else { return true }
        // Each action has its own bucket, even if its size is a default.
        let key = "\(action)|\(name)"
        var tokens = bucket.burst
        if let level = levels[key] {
            let refill = Double((now - level.at).nanoseconds) / 1e9 * bucket.perSecond
            tokens = min(bucket.burst, level.tokens + refill)
        }
        let admitted = tokens >= 1
        levels[key] = (admitted ? tokens - 1 : tokens, now)
        return admitted
    }

    private func bucketName(_ action: String, unfiltered: Bool) -> String {
        if unfiltered { return Name.unfiltered }
        if buckets[action] != nil { return action }
        return action.hasPrefix("Describe") ? Name.nonMutating : Name.mutating
    }
}
