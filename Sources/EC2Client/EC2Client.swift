import AWSWire
package import Base
import HTTPWire
package import Logging
package import Ring
import TLS

/// The calls of EC2 that the plugin needs.
///
/// Each attempt is signed anew; `Retry` decides about retries, until the deadline. The calls throw
/// `EC2Failure`, or `CancellationError` if they are cancelled during a pause.
///
/// If credentials are missing or have expired, they are fetched first, by one fetch for all
/// callers. This may take `Limit.credentialsTimeMax`, regardless of a caller's deadline; after the
/// deadline nothing is sent.
@RingActor package final class EC2Client {
    private struct Target {
        var endpoint: Endpoint
        var region: String
    }

    private let settings: EC2Settings
    private let metadata: InstanceMetadata?
    private let transport: any HTTPTransport
    private let time: any TimeSource
    private let clock: CorrectedClock
    private let credentials: CredentialProvider
    private let log: Logger
    private let random: @Sendable () -> Double
    private let signer = SigV4(sha256: Digest.sha256) { HMAC.sha256(key: $0, data: $1) }
    private var knownTarget: Target?
    private var budget = RequestBudget()
    /// Called when a call has ended: with nil if EC2 has answered, even with an error; otherwise
    /// with the reason why there was no answer.
    package var whenEnded: @RingActor (EC2Failure?) -> Void = { _ in }
    private lazy var volumeLookups = VolumeLookups(time: time) {
        [weak self] ids, deadline, attemptFailed in
        guard let self else { throw CancellationError() }
        return try await call(
            .describeVolumes(ids), on: told(ids), by: deadline, attemptFailed: attemptFailed
        ) { body throws(EC2Failure) in try EC2Answer.volumes(body) }
    }

    package nonisolated init(
        settings: EC2Settings, credentials source: CredentialSource, metadata: InstanceMetadata?,
        transport: any HTTPTransport, time: any TimeSource, log: Logger,
        random: @escaping @Sendable () -> Double = { Double.random(in: 0..<1) }
    ) {
        self.settings = settings
        self.metadata = metadata
        self.transport = transport
        self.time = time
        self.log = log
        self.random = random
        clock = CorrectedClock(time: time)
        credentials = CredentialProvider(source: source, clock: clock, time: time, log: log)
    }

    /// Nil if there is no such volume. Lookups at about the same time share a call.
    package func describeVolume(_ id: VolumeID, by deadline: Instant) async throws
        -> VolumeDescription?
    {
        try await volumeLookups.volume(id, by: deadline)
    }

    /// Nil if there is no such instance, or no longer.
    package func describeInstance(_ id: InstanceID, by deadline: Instant) async throws
        -> InstanceDescription?
    {
        try await call(.describeInstance(id), on: "\(id)", by: deadline) {
            body throws(EC2Failure) in
            try EC2Answer.instances(body).first { $0.id == id }
        }
    }

    /// Nil if EC2 reports no limit for that type.
    package func attachmentLimit(of instanceType: String, by deadline: Instant) async throws
        -> AttachmentLimit?
    {
        try await call(.describeInstanceType(instanceType), on: instanceType, by: deadline) {
            body throws(EC2Failure) in
            try EC2Answer.attachmentLimit(body, of: instanceType)
        }
    }

    /// Never repeated once EC2 may have applied it: after `unanswered(mayHaveApplied: true)` the
    /// caller must find out what happened.
    package func attach(
        _ volume: VolumeID, to instance: InstanceID, as deviceName: String, by deadline: Instant
    ) async throws -> VolumeAttachment {
        let request = EC2Request.attach(volume, to: instance, as: deviceName)
        return try await call(request, on: "\(volume)", by: deadline) { body throws(EC2Failure) in
            try EC2Answer.attachment(body, of: volume, action: request.action)
        }
    }

    /// Sent only once, by `latest`: throttling is thrown like any other error.
    package func detach(
        _ volume: VolumeID, from instance: InstanceID, force: Bool, sentBy latest: Instant,
        by deadline: Instant
    ) async throws -> VolumeAttachment {
        let request = EC2Request.detach(volume, from: instance, force: force)
        return try await call(request, on: "\(volume)", sentBy: latest, by: deadline) {
            body throws(EC2Failure) in
            try EC2Answer.attachment(body, of: volume, action: request.action)
        }
    }

    package func setTags(
        _ tags: [String: String], on volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        let request = EC2Request.setTags(tags, on: volume)
        try await call(request, on: "\(volume)", sentBy: latest, by: deadline) {
            body throws(EC2Failure) in
            try EC2Answer.done(body, action: request.action)
        }
    }

    package func maySetTags(
        _ tags: [String: String], on volume: VolumeID, by deadline: Instant
    ) async throws -> Bool {
        let request = EC2Request.setTags(tags, on: volume).asDryRun
        do {
            try await call(request, on: "\(volume)", by: deadline) { _ throws(EC2Failure) in }
        } catch let failure as EC2Failure {
            switch failure.code {
            case "DryRunOperation": return true
            case "UnauthorizedOperation": return false
            default: throw failure
            }
        }
        throw EC2Failure.malformed(reason: "EC2 answered a dry run of CreateTags like a real call")
    }

    /// The tag is removed only if it still has that value.
    package func removeTag(
        _ key: String, value: String, from volume: VolumeID, sentBy latest: Instant,
        by deadline: Instant
    ) async throws {
        let request = EC2Request.removeTag(key, value: value, from: volume)
        try await call(request, on: "\(volume)", sentBy: latest, by: deadline) {
            body throws(EC2Failure) in
            try EC2Answer.done(body, action: request.action)
        }
    }
}

extension EC2Client {
    private func call<Value>(
        _ request: EC2Request, on subject: String, sentBy latest: Instant? = nil,
        by deadline: Instant, attemptFailed: (EC2Failure) -> Void = { _ in },
        read: ([UInt8]) throws(EC2Failure) -> Value
    ) async throws -> Value {
        do {
            let value = try await perform(
                request, on: subject, sentBy: latest, by: deadline, attemptFailed: attemptFailed,
                read: read)
            whenEnded(nil)
            return value
        } catch let failure as EC2Failure {
            if case .outdated = failure { throw failure }
            whenEnded(failure.code == nil ? failure : nil)
            throw failure
        }
    }

    private func perform<Value>(
        _ request: EC2Request, on subject: String, sentBy latest: Instant?, by deadline: Instant,
        attemptFailed: (EC2Failure) -> Void, read: ([UInt8]) throws(EC2Failure) -> Value
    ) async throws -> Value {
        var log = log
        log[metadataKey: "action"] = "\(request.action)"
        log[metadataKey: "subject"] = "\(subject)"
        let target = try await target(by: deadline)
        var keys = try await credentials.current()
        var retry = Retry(
            isRepeatable: request.isRepeatable,
            attemptsMax: request.isSentOnce ? 1 : settings.attemptsMax)
        let lastMoment = min(latest ?? deadline, deadline)
        while true {
            do {
                try await awaitBudget(of: request.action, by: lastMoment, retry, log)
            } catch EC2Failure.unanswered where lastMoment < deadline {
                throw outdated(request)
            }
            if let latest, time.now > latest { throw outdated(request) }
            let signedAt = clock.unixSeconds
            let failure: Retry.Failure
            do {
                return try await countedAttempt(
                    request, at: target, with: keys, signedAt: signedAt, sentBy: latest,
                    by: deadline, log, read: read)
            } catch {
                failure = error
            }
            if case .refused(let refusal, _, _) = failure { attemptFailed(refusal) }
            if let latest, time.now > latest, case .unanswered(_, mayHaveReached: false) = failure {
                throw outdated(request)
            }
            switch retry.decide(
                failure, signedAt: signedAt, random: random(), remaining: lastMoment - time.now)
            {
            case .fail(let failure): throw failure
            case .again(let pause):
                log.warning(
                    "EC2 call failed: trying again",
                    metadata: ["after_ms": "\(pause.milliseconds)", "error": "\(failure)"])
                try await time.sleep(until: time.now + pause)
                keys = try await credentials.current()
            case .refreshCredentials(let refusal):
                let fresh = try await credentials.refresh(replacing: keys)
                if fresh == keys { throw refusal }
                keys = fresh
            case .correctClock(let serverTime):
                let behind = clock.correct(to: serverTime)
                log.warning(
                    "this machine's clock is wrong: signing requests with EC2's time",
                    metadata: ["behind_s": "\(behind)"])
            }
        }
    }

    /// One attempt, after which the budget knows whether EC2 throttled it.
    private func countedAttempt<Value>(
        _ request: EC2Request, at target: Target, with keys: Credentials, signedAt: Int64,
        sentBy latest: Instant?, by deadline: Instant, _ log: Logger,
        read: ([UInt8]) throws(EC2Failure) -> Value
    ) async throws(Retry.Failure) -> Value {
        let asked = time.now
        do throws(Retry.Failure) {
            let value = try await attempt(
                request, at: target, with: keys, signedAt: signedAt, sentBy: latest, by: deadline,
                read: read)
            log.debug("EC2 answered", metadata: ["ms": "\((time.now - asked).milliseconds)"])
            budget.note(request.action, isThrottled: false, sentAt: asked, at: time.now)
            return value
        } catch {
            if case .refused = error {
                budget.note(
                    request.action, isThrottled: error.isThrottling, sentAt: asked, at: time.now)
            }
            throw error
        }
    }

    private func outdated(_ request: EC2Request) -> EC2Failure {
        .outdated(
            reason:
                "the facts that justify \(request.action) became too old before it could be sent"
        )
    }

    /// Waits for the call's turn according to the rate that EC2 allows. Throws at once if that
    /// would be too late.
    private func awaitBudget(
        of action: String, by deadline: Instant, _ retry: Retry, _ log: Logger
    ) async throws {
        let now = time.now
        guard let wait = budget.take(for: action, at: now, patience: deadline - now) else {
            let rate = budget.rate(of: action)
            throw retry.outOfTime(
                "EC2 limits the rate of \(action) (throttling): this host sends \(rate) a second, "
                    + "and the next call would be sent after the deadline")
        }
        guard wait > .zero else { return }
        log.notice(
            "EC2 limits the rate of requests: waiting",
            metadata: [
                "wait_ms": "\(wait.milliseconds)", "per_s": "\(budget.rate(of: action))",
            ])
        try await time.sleep(until: now + wait)
    }

    private func attempt<Value>(
        _ request: EC2Request, at target: Target, with keys: Credentials, signedAt: Int64,
        sentBy latest: Instant?, by deadline: Instant, read: ([UInt8]) throws(EC2Failure) -> Value
    ) async throws(Retry.Failure) -> Value {
        guard time.now < deadline else {
            throw .unanswered(reason: "the deadline has passed", mayHaveReached: false)
        }
        let message = message(request, at: target, with: keys, signedAt: signedAt)
        let response: HTTPResponse
        do {
            response = try await transport.send(
                message, to: target.endpoint, by: deadline, bodyMax: Limit.ec2ResponseBodyMax,
                isRepeatable: request.isRepeatable, sentBy: latest)
        } catch {
            throw .unanswered(reason: error.reason, mayHaveReached: error.mayHaveReached)
        }
        guard response.status == 200 else {
            let serverTime = response.headers["Date"].flatMap { CivilTime(httpDate: $0) }
            let refusal = EC2Answer.refusal(
                status: response.status, body: response.body,
                requestIDHeader: response.headers["x-amzn-RequestId"])
            throw .refused(refusal, status: response.status, serverTime: serverTime?.unixSeconds)
        }
        do {
            return try read(response.body)
        } catch {
            guard case .malformed(let reason) = error else {
                preconditionFailure("a reader's only failure is not to understand")
            }
            throw .malformed(reason: reason)
        }
    }

    private func message(
        _ request: EC2Request, at target: Target, with keys: Credentials, signedAt: Int64
    ) -> HTTPRequest {
        let path = target.endpoint.path + "/"
        let signed = signer.sign(
            SigV4.Request(
                method: "POST", path: path,
                headers: [
                    ("Host", target.endpoint.authority), ("Content-Type", EC2Request.contentType),
                ], body: request.body), with: keys, region: target.region, service: "ec2",
            at: signedAt)
        var headers = HTTPHeaders()
        for (name, value) in signed.headers { headers.append(name, value) }
        headers.append("User-Agent", settings.userAgent)
        return HTTPRequest(method: "POST", target: path, headers: headers, body: request.body)
    }

    /// If the settings name no region, the metadata service is asked for it; if that fails, it is
    /// asked again on the next call.
    private func target(by deadline: Instant) async throws -> Target {
        if let knownTarget { return knownTarget }
        do {
            var region = settings.region
            if region == nil { region = try await metadata?.identity(by: deadline).region }
            guard let region else {
                throw OperationError(
                    .cloud, doing: "choose a region", found: "none is set", advice: "set REGION")
            }
            let endpoint =
                try settings.endpoint
                ?? Endpoint.ec2(
                    region: region, useFIPS: settings.useFIPS, useDualStack: settings.useDualStack)
            let target = Target(endpoint: endpoint, region: region)
            knownTarget = target
            return target
        } catch {
            throw EC2Failure.unanswered(
                reason: "the region is not known: \(error)", mayHaveApplied: false)
        }
    }
}

/// For log lines: names a few of many volumes.
private func told(_ ids: [VolumeID]) -> String {
    let named = ids.prefix(Limit.volumesNamedMax).map(\.description).joined(separator: ", ")
    let more = ids.count - Limit.volumesNamedMax
    return more > 0 ? "\(named) and \(more) more" : named
}
