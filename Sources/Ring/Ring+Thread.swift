import CLinux

/// Runs `body` on a thread of its own, which ends with it, with all signals blocked; false where no
/// thread can be started. For what may block for ever and must not take a worker's place.
///
/// - Parameter name: 15 bytes at most.
package func runOnThread(named name: String, _ body: @escaping @Sendable () -> Void) -> Bool {
    let work = Unmanaged.passRetained(Work(body: body))
    let error = CLinux_start_thread(
        name,
        { context in
            guard let context else { return nil }
            Unmanaged<Work>.fromOpaque(context).takeRetainedValue().body()
            return nil
        }, work.toOpaque())
    if error != 0 { work.release() }
    return error == 0
}

private final class Work: Sendable {
    let body: @Sendable () -> Void

    init(body: @escaping @Sendable () -> Void) { self.body = body }
}
