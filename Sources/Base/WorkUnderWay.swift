/// A system call, or a program, that has not come to its end.
package struct WorkUnderWay: Sendable, Equatable {
    /// What it does, to what, as in an `OperationError`: `mount vol-… (/dev/nvme1n1) at /mnt/vol-…`.
    package var doing: String
    package var since: Instant
    /// Whether it takes longer than any does whose device answers.
    package var hangs: Bool

    package init(doing: String, since: Instant, hangs: Bool) {
        self.doing = doing
        self.since = since
        self.hangs = hangs
    }
}
