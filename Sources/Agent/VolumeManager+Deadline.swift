import Base
import Logging
import VolumeCore

// How every call is answered by its deadline, even if a system call or a program hangs.

/// A call whose result is awaited. Only the manager uses it: hence `@unchecked`.
private final class PendingCall<Value: Sendable>: @unchecked Sendable {
    let volume: VolumeID
    var work: Task<Void, Never>?
    /// Whether its time is over: then the result of its work is no longer needed.
    var isOverdue = false
    private var result: Result<Value, any Error>?
    private var waiter: CheckedContinuation<Value, any Error>?

    init(about volume: VolumeID) { self.volume = volume }

    var isSettled: Bool { result != nil }

    func settle(_ result: Result<Value, any Error>) {
        self.result = result
        waiter?.resume(with: result)
        waiter = nil
    }

    func await(_ continuation: CheckedContinuation<Value, any Error>) {
        if let result { return continuation.resume(with: result) }
        waiter = continuation
    }
}

extension VolumeManager {
    /// Does the work of a call and returns its result, or at the end of `time` throws an error that
    /// says what it waits for.
    ///
    /// The work gets a deadline that is a little earlier, so that its result can be the response.
    /// Work that hangs in the kernel cannot be ended: it continues without its caller, with its
    /// task cancelled, and later calls about the volume join it. Cancelling the calling task
    /// cancels the work's task.
    func answered<Value: Sendable>(
        within time: Duration, doing: String, about volume: VolumeID,
        _ work: @escaping @Sendable (isolated VolumeManager, Instant) async throws -> Value
    ) async throws -> Value {
        let time = await patience(with: volume, atMost: time)
        if overdueCalls[volume, default: 0] >= Limit.overdueCallsMax {
            throw await lateness(doing, volume, after: .zero)
        }
        let end = ports.time.now + time
        let call = PendingCall<Value>(about: volume)
        let working = Task(executorPreference: executor) {
            await self.carryOut(work, by: end + (.zero - Limit.answerTimeMax), for: call)
        }
        call.work = working
        let alarm = Task(executorPreference: executor) {
            await self.give(up: call, at: end, doing, after: time)
        }
        defer { alarm.cancel() }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { call.await($0) }
        } onCancel: {
            working.cancel()
        }
    }

    private func carryOut<Value>(
        _ work: @Sendable (isolated VolumeManager, Instant) async throws -> Value,
        by deadline: Instant, for call: PendingCall<Value>
    ) async {
        let result: Result<Value, any Error>
        do { result = .success(try await work(self, deadline)) } catch { result = .failure(error) }
        guard call.isOverdue else { return call.settle(result) }
        let others = overdueCalls[call.volume, default: 1] - 1
        overdueCalls[call.volume] = others > 0 ? others : nil
    }

    private func give<Value>(
        up call: PendingCall<Value>, at end: Instant, _ doing: String, after time: Duration
    ) async {
        do { try await ports.time.sleep(until: end) } catch { return }
        guard !call.isSettled else { return }
        call.isOverdue = true
        overdueCalls[call.volume, default: 0] += 1
        call.work?.cancel()
        let error = await lateness(doing, call.volume, after: time)
        log.error(
            "a call is answered although its work has not ended",
            metadata: ["volume": "\(call.volume)", "error": "\(error)"])
        call.settle(.failure(error))
    }

    /// How long a call about the volume waits. If something hangs that has already outlasted a
    /// call, it is answered before Docker's default timeout, so that its user sees why.
    private func patience(with id: VolumeID, atMost time: Duration) async -> Duration {
        guard overdueCalls[id] != nil, await ports.fileSystems.workUnderWay(on: id)?.hangs == true
        else { return time }
        return min(time, Limit.hangingAnswerTimeMax)
    }

    /// The error of a call whose work has not ended or, after zero time, of one call too many.
    private func lateness(
        _ doing: String, _ id: VolumeID, after time: Duration
    ) async -> OperationError {
        let waited =
            time > .zero
            ? "after \(time.components.seconds) s of waiting "
            : "\(Limit.overdueCallsMax) calls about the volume are already waiting, and "
        if let work = await ports.fileSystems.workUnderWay(on: id) {
            return OperationError(
                .deadline, doing: doing, found: waited + "this has not ended: \(text(work))",
                advice: "it continues, a later call joins it; look at the volume's status checks "
                    + "('aws ec2 describe-volume-status --volume-ids \(id)') and at 'dmesg' on the "
                    + "instance: while the volume does not respond, nothing here can end it")
        }
        if let work = await ports.state.workUnderWay() {
            return OperationError(
                .deadline, doing: doing,
                found: waited + "the state is not saved, this has not ended: \(text(work))",
                advice: "it continues; look at 'dmesg' on the instance, and at the disk with the "
                    + "state folder")
        }
        return OperationError(
            .deadline, doing: doing,
            found: waited
                + "the volume is still \(volumes[id]?.state.phaseName ?? "being looked up")",
            advice: "what was begun continues, and a later call joins it")
    }

    private func text(_ work: WorkUnderWay) -> String {
        let age = (ports.time.now - work.since).components.seconds
        let begin = CivilTime(unixSeconds: ports.time.unixSeconds - age).rfc3339
        return "\(work.doing) (since \(begin), \(age) s)"
    }
}
