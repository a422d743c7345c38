import Base
import Ring
import TestSupport
import Testing

@testable import EC2Client

private let a = VolumeID(literal: "vol-0000000000000000a")
private let b = VolumeID(literal: "vol-0000000000000000b")
private let c = VolumeID(literal: "vol-0000000000000000c")

/// Lookups whose calls the test answers by hand.
@RingActor private final class Scene {
    typealias Found = Result<[VolumeDescription], any Error>

    final class Call {
        let ids: [VolumeID]
        let deadline: Instant
        let attemptFailed: (EC2Failure) -> Void
        private let continuation: CheckedContinuation<Found, Never>

        init(
            _ ids: [VolumeID], _ deadline: Instant, _ attemptFailed: @escaping (EC2Failure) -> Void,
            _ continuation: CheckedContinuation<Found, Never>
        ) {
            self.ids = ids
            self.deadline = deadline
            self.attemptFailed = attemptFailed
            self.continuation = continuation
        }

        func answer(_ found: Found) { continuation.resume(returning: found) }

        /// Like EC2, returns the existing ones.
        func answer(with volumes: VolumeID...) {
            answer(
                .success(
                    volumes.map {
                        VolumeDescription(id: $0, state: .available, availabilityZone: "z", size: 1)
                    }))
        }
    }

    let time = ManualTime()
    private(set) var calls: [Call] = []
    private(set) var cancelled = 0
    private(set) lazy var lookups = VolumeLookups(time: time) {
        [unowned self] ids, deadline, attemptFailed in
        let found: Found = await withTaskCancellationHandler {
            await withCheckedContinuation {
                calls.append(Call(ids, deadline, attemptFailed, $0))
            }
        } onCancel: {
            RingActor.spawn { self.cancelled += 1 }
        }
        return try found.get()
    }

    func look(
        _ id: VolumeID, for patience: Duration = .seconds(60)
    ) -> Task<VolumeDescription?, any Error> {
        let deadline = time.now + patience
        return RingActor.spawn { try await self.lookups.volume(id, by: deadline) }
    }

    /// Runs everything that can run.
    func settle() async { for _ in 0..<200 { await Task.yield() } }

    /// The call with that number, counted from 0, once it was made.
    func call(_ number: Int) async throws -> Call {
        await settle()
        return try #require(calls.dropFirst(number).first)
    }
}

@Suite(.timeLimit(.minutes(5))) struct VolumeLookupsTests {
    @Test func `a lookup is sent at once, later ones are sent together after it`()
        async throws
    {
        try await onRing {
            let scene = Scene()
            let first = scene.look(a)
            let call = try await scene.call(0)
            #expect(call.ids == [a])
            let others = [scene.look(b), scene.look(c), scene.look(b)]
            await scene.settle()
            #expect(scene.calls.count == 1)
            call.answer(with: a)
            #expect(try await first.value?.id == a)
            let second = try await scene.call(1)
            #expect(second.ids == [b, c])
            second.answer(with: c, b)
            for (task, id) in zip(others, [b, c, b]) {
                #expect(try await task.value?.id == id)
            }
            #expect(scene.calls.count == 2)
        }
    }

    @Test func `a lookup is not answered by a call that was under way when it was asked for`()
        async throws
    {
        try await onRing {
            let scene = Scene()
            let first = scene.look(a)
            let call = try await scene.call(0)
            let second = scene.look(a)
            await scene.settle()
            call.answer(with: a)
            #expect(try await first.value != nil)
            try await scene.call(1).answer(with: a)
            #expect(try await second.value != nil)
        }
    }

    @Test func `a volume that does not exist is nil for its caller alone`() async throws {
        try await onRing {
            let scene = Scene()
            let first = scene.look(a)
            let call = try await scene.call(0)
            let (missing, there) = (scene.look(b), scene.look(c))
            await scene.settle()
            call.answer(with: a)
            _ = try await first.value
            try await scene.call(1).answer(with: c)
            #expect(try await missing.value == nil)
            #expect(try await there.value?.id == c)
        }
    }

    @Test func `a call that fails fails for each of its callers, and for no later one`()
        async throws
    {
        try await onRing {
            let scene = Scene()
            let refusal = EC2Failure.refused(
                code: "UnauthorizedOperation", message: "m", requestID: "r")
            let first = scene.look(a)
            let call = try await scene.call(0)
            let others = [scene.look(b), scene.look(c)]
            await scene.settle()
            call.answer(.success([]))
            _ = try await first.value
            let second = try await scene.call(1)
            let later = scene.look(a)
            await scene.settle()
            second.answer(.failure(refusal))
            for task in others {
                await #expect(throws: refusal) { try await task.value }
            }
            try await scene.call(2).answer(with: a)
            #expect(try await later.value?.id == a)
        }
    }

    @Test func `a caller that is cancelled leaves the others alone`() async throws {
        try await onRing {
            let scene = Scene()
            let first = scene.look(a)
            let call = try await scene.call(0)
            let (gone, stays) = (scene.look(b), scene.look(c))
            await scene.settle()
            call.answer(with: a)
            _ = try await first.value
            let second = try await scene.call(1)
            gone.cancel()
            await #expect(throws: CancellationError.self) { try await gone.value }
            second.answer(with: b, c)
            #expect(try await stays.value?.id == c)
            #expect(scene.cancelled == 0)
        }
    }

    @Test func `a lookup that is cancelled while it waits is not sent`() async throws {
        try await onRing {
            let scene = Scene()
            let first = scene.look(a)
            let call = try await scene.call(0)
            let (gone, stays) = (scene.look(b), scene.look(c))
            await scene.settle()
            gone.cancel()
            await #expect(throws: CancellationError.self) { try await gone.value }
            call.answer(with: a)
            _ = try await first.value
            let second = try await scene.call(1)
            #expect(second.ids == [c])
            stays.cancel()
            await #expect(throws: CancellationError.self) { try await stays.value }
            await scene.settle()
            #expect(scene.cancelled == 1)
            second.answer(.failure(CancellationError()))
        }
    }

    @Test func `a call that nobody waits for any more is cancelled`() async throws {
        try await onRing {
            let scene = Scene()
            let only = scene.look(a)
            let call = try await scene.call(0)
            only.cancel()
            await #expect(throws: CancellationError.self) { try await only.value }
            await scene.settle()
            #expect(scene.cancelled == 1)
            call.answer(.failure(CancellationError()))
        }
    }

    @Test func `a deadline ends its caller's wait, with what EC2 said last, and no other's`()
        async throws
    {
        try await onRing {
            let scene = Scene()
            let throttling = EC2Failure.refused(
                code: "RequestLimitExceeded", message: "m", requestID: "r")
            let first = scene.look(a)
            let call = try await scene.call(0)
            let (short, long) = (scene.look(b, for: .seconds(5)), scene.look(c, for: .seconds(50)))
            await scene.settle()
            call.answer(with: a)
            _ = try await first.value
            let second = try await scene.call(1)
            #expect(second.deadline == scene.time.now + .seconds(50))
            second.attemptFailed(throttling)
            scene.time.advance(by: .seconds(5))
            await scene.settle()
            scene.time.advance(by: .seconds(5))
            await #expect(throws: throttling) { try await short.value }
            second.answer(with: b, c)
            #expect(try await long.value?.id == c)
        }
    }

    @Test func `a call that hangs delays nobody for longer than a second`() async throws {
        try await onRing {
            let scene = Scene()
            let hung = scene.look(a)
            let call = try await scene.call(0)
            let others = [scene.look(b), scene.look(c)]
            await scene.settle()
            scene.time.advance(by: Limit.lookupWaitMax)
            let second = try await scene.call(1)
            #expect(second.ids == [b, c])
            // From then on, later ones wait for this one.
            let later = scene.look(a)
            await scene.settle()
            call.answer(with: a)
            #expect(try await hung.value?.id == a)
            await scene.settle()
            #expect(scene.calls.count == 2)
            second.answer(with: b, c)
            for task in others { _ = try await task.value }
            try await scene.call(2).answer(with: a)
            #expect(try await later.value?.id == a)
        }
    }

    @Test func `a call asks for no more volumes than a filter takes`() async throws {
        try await onRing {
            let scene = Scene()
            let first = scene.look(a)
            let call = try await scene.call(0)
            let max = Limit.volumesPerLookupMax
            let ids = (0..<(max + 1)).compactMap {
                VolumeID("vol-\(String(0x1000_0000 + $0, radix: 16))")
            }
            let others = ids.map { scene.look($0) }
            await scene.settle()
            call.answer(with: a)
            _ = try await first.value
            let second = try await scene.call(1)
            #expect(second.ids.count == max)
            second.answer(.success([]))
            let third = try await scene.call(2)
            #expect(third.ids == [ids[max]])
            third.answer(with: ids[max])
            #expect(try await others[max].value?.id == ids[max])
        }
    }
}
