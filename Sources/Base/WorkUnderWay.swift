/// A system call or a program that has not ended.
package struct WorkUnderWay: Sendable, Equatable {
    /// What it does, to what, as in an `OperationError`: `mount vol-… (/dev/nvme1n1) at
    /// /mnt/vol-…`.
    package var doing: String
    package var since: Instant
    /// Whether it takes longer than it could if its device responded.
    package var hangs: Bool

    package init(doing: String, since: Instant, hangs: Bool) {
        self.doing = doing
        self.since = since
        self.hangs = hangs
    }
}
