import Base
import Ring

/// Looks up volumes. Lookups that are requested at about the same time share one call.
///
/// A lookup is sent at once if none is in progress. Lookups that are requested in the meantime wait
/// until it ends, and are then sent together. Its response does not answer them, because it may be
/// older than what their callers did before. They wait no longer than `Limit.lookupWaitMax`.
///
/// A caller that is cancelled or whose deadline passes does not affect the others; a call that
/// nobody waits for any more is cancelled.
@RingActor final class VolumeLookups {
    /// Describes those of the volumes that exist. Reports each failed attempt.
    typealias Ask =
        @RingActor @Sendable (
            _ ids: [VolumeID], _ deadline: Instant, _ attemptFailed: @escaping (EC2Failure) -> Void
        ) async throws -> [VolumeDescription]
    private typealias Outcome = Result<VolumeDescription?, any Error>

    private struct Lookup {
        let id: VolumeID
        let deadline: Instant
        let continuation: CheckedContinuation<Outcome, Never>
        /// The call that includes it; nil while it waits for one.
        var call: Call?
        var timer: Task<Void, Never>?
    }

    private final class Call {
        var waiting = 0
        var task: Task<Void, Never>?
        var lastFailure: EC2Failure?
    }

    private let time: any TimeSource
    private let ask: Ask
    private var lookups: [UInt64: Lookup] = [:]
    /// The numbers of the lookups that wait for a call, in order.
    private var queue: [UInt64] = []
    /// The call whose end the queue waits for.
    private var current: Call?
    private var lastNumber: UInt64 = 0

    init(time: any TimeSource, ask: @escaping Ask) {
        self.time = time
        self.ask = ask
    }

    /// Nil if there is no such volume.
    func volume(_ id: VolumeID, by deadline: Instant) async throws -> VolumeDescription? {
        lastNumber += 1
        let number = lastNumber
        let outcome: Outcome = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard !Task.isCancelled else {
                    return continuation.resume(returning: .failure(CancellationError()))
                }
                lookups[number] = Lookup(id: id, deadline: deadline, continuation: continuation)
                queue.append(number)
                if current == nil { depart() } else { watch(number) }
            }
        } onCancel: {
            RingActor.spawn { self.end(number, .failure(CancellationError())) }
        }
        return try outcome.get()
    }

    /// Sends the waiting lookups.
    private func depart() {
        let members = queue.prefix(Limit.volumesPerLookupMax)
        queue.removeFirst(members.count)
        let call = Call()
        call.waiting = members.count
        for number in members { lookups[number]?.call = call }
        // The latest deadline: lookups with an earlier one have their own timers.
        let deadline = members.compactMap { lookups[$0]?.deadline }.max()
        let ids = Set(members.compactMap { lookups[$0]?.id })
        guard let deadline else { return }
        current = call
        call.task = RingActor.spawn { [ask] in
            let outcome: Result<[VolumeDescription], any Error>
            do {
                let ids = ids.sorted { $0.description < $1.description }
                outcome = .success(try await ask(ids, deadline) { call.lastFailure = $0 })
            } catch {
                outcome = .failure(error)
            }
            self.end(call, members, outcome)
        }
    }

    private func end(
        _ call: Call, _ members: ArraySlice<UInt64>,
        _ outcome: Result<[VolumeDescription], any Error>
    ) {
        for number in members {
            guard let id = lookups[number]?.id else { continue }
            end(number, outcome.map { volumes in volumes.first { $0.id == id } })
        }
        guard current === call else { return }
        current = nil
        if !queue.isEmpty { depart() }
    }

    private func end(_ number: UInt64, _ outcome: Outcome) {
        guard let lookup = lookups.removeValue(forKey: number) else { return }
        lookup.timer?.cancel()
        queue.removeAll { $0 == number }
        if let call = lookup.call {
            call.waiting -= 1
            if call.waiting == 0 { call.task?.cancel() }
        }
        lookup.continuation.resume(returning: outcome)
    }

    /// Ensures that a lookup that waits for another call waits neither too long nor beyond its
    /// deadline.
    private func watch(_ number: UInt64) {
        guard let deadline = lookups[number]?.deadline else { return }
        let soon = min(deadline, time.now + Limit.lookupWaitMax)
        lookups[number]?.timer = RingActor.spawn { [time] in
            do {
                try await time.sleep(until: soon)
                if time.now < deadline {
                    if self.lookups[number]?.call == nil { self.depart() }
                    try await time.sleep(until: deadline)
                }
            } catch { return }
            let late = EC2Failure.unanswered(
                reason: "the deadline has passed", mayHaveApplied: false)
            self.end(number, .failure(self.lookups[number]?.call?.lastFailure ?? late))
        }
    }
}
