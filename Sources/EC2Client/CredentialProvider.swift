import AWSWire
import Base
import Logging
import Ring

/// Keeps credentials fresh: fetches new ones before the old ones expire, one fetch at a time, and
/// uses the old ones while they are valid.
///
/// Does nothing unless it is asked, so that an idle daemon does not wake up.
@RingActor final class CredentialProvider {
    private let source: CredentialSource
    private let clock: CorrectedClock
    private let time: any TimeSource
    private let log: Logger
    private var held: Credentials?
    /// Credentials that are still valid are not replaced before this time.
    private var nextRefresh = Instant(nanoseconds: 0)
    private let fetching = SingleFlight<Credentials>()

    nonisolated init(
        source: CredentialSource, clock: CorrectedClock, time: any TimeSource, log: Logger
    ) {
        self.source = source
        self.clock = clock
        self.time = time
        self.log = log
    }

    /// Throws `EC2Failure.noCredentials`, after `Limit.credentialsTimeMax` at the latest.
    func current() async throws -> Credentials {
        guard let held else { return try await fetch() }
        guard let expiration = held.expiration else { return held }
        let left = expiration - clock.unixSeconds
        if left > Limit.credentialsRefreshAhead.components.seconds || time.now < nextRefresh {
            return held
        }
        if left <= 0 { return try await fetch() }
        fetching.start { [self] in try await replace() }
        return held
    }

    /// After EC2 said that `used` have expired.
    func refresh(replacing used: Credentials) async throws -> Credentials {
        if let held, held != used { return held }
        return try await fetch()
    }

    private func fetch() async throws -> Credentials {
        try await fetching.run { [self] in try await replace() }
    }

    private func replace() async throws -> Credentials {
        nextRefresh = time.now + Limit.credentialsRefreshInterval
        do {
            let fresh = try await ask()
            // Only a change is worth a log line: near their expiry the same credentials may be
            // returned several times.
            if fresh != held {
                let left = fresh.expiration.map { "\($0 - clock.unixSeconds)" } ?? "never"
                log.info(
                    "credentials fetched",
                    metadata: ["key": "\(fresh.accessKeyID)", "expires_in_s": "\(left)"])
            }
            held = fresh
            return fresh
        } catch {
            log.warning("credentials could not be fetched", metadata: ["error": "\(error)"])
            throw EC2Failure.noCredentials(reason: "\(error)")
        }
    }

    private func ask() async throws -> Credentials {
        let deadline = time.now + Limit.credentialsTimeMax
        switch source {
        case .fixed(let credentials): return credentials
        case .container(let container): return try await container.fetch(by: deadline)
        case .instanceRole(let metadata): return try await metadata.credentials(by: deadline)
        case .none(let reason):
            throw OperationError(.cloud, doing: "find AWS credentials", found: reason)
        }
    }
}

/// The wall clock, corrected by the date of EC2's responses once they have shown it to be wrong.
@RingActor final class CorrectedClock {
    private let time: any TimeSource
    private var correction: Int64 = 0

    nonisolated init(time: any TimeSource) { self.time = time }

    var unixSeconds: Int64 { time.unixSeconds + correction }

    /// Returns the seconds by which this machine's clock is behind.
    func correct(to serverTime: Int64) -> Int64 {
        correction = serverTime - time.unixSeconds
        return correction
    }
}
