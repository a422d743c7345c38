import CLinux

/// Runs `body` on a separate thread with all signals blocked, which ends with it; false if no
/// thread can be started. For work that may block forever and must not occupy a worker.
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
