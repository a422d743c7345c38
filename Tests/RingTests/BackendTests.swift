import Base
import CUring
import Glibc
import Ring
import SystemPackage
import TestSupport
import Testing

/// `Tests/Rig/barring.py` runs this module's suites a second time with io_uring blocked.
private let isBarredOnPurpose = getenv("BARRED") != nil

/// Why io_uring is not available on this machine; nil if it is.
private let reasonAgainst: String? = {
    var ring: OpaquePointer?
    let result = CUring_init(&ring, 4, 0)
    return result == 0 ? nil : "io_uring_setup: \(Errno(rawValue: -result))"
}()

@Suite(.timeLimit(.minutes(5))) struct BackendTests {
    @Test(
        .enabled(
            if: isBarredOnPurpose || reasonAgainst == nil,
            "no io_uring here, so both runs use epoll: \(reasonAgainst ?? "")"))
    func `io_uring is used where there is one, and epoll elsewhere`() async throws {
        let refusal = try await onRing { RingActor.ring.uringRefusal }
        #expect((refusal != nil) == isBarredOnPurpose, "\(refusal?.description ?? "no refusal")")
    }

    /// A machine's configuration, and the explanation that the operator must be given.
    private static let causes: [(errno: Errno, facts: UringRefusal.Facts, says: String)] = [
        (.notPermitted, facts(sysctl: "2"), "the sysctl kernel.io_uring_disabled is 2 (0 allows"),
        (.notPermitted, facts(sysctl: "1"), "leaves it to CAP_SYS_ADMIN and a group (0 allows it)"),
        (.notPermitted, facts(sysctl: "0", isFiltered: true), "not permitted: a seccomp filter"),
        (.notPermitted, facts(sysctl: "2", isFiltered: true), "(0 allows it), or a seccomp filter"),
        (.notPermitted, facts(sysctl: nil, isFiltered: true), "not permitted: a seccomp filter"),
        (.permissionDenied, facts(sysctl: "0"), "a security module's policy"),
        (.noFunction, facts(release: "4.14.355"), "Linux 4.14.355 has none (it takes 5.7"),
        (.noFunction, facts(isFiltered: true), ", or a seccomp filter bars it"),
        (.invalidArgument, facts(release: "5.4.0"), "Linux 5.4.0 is too old for it: it takes 5.7"),
        (.noMemory, facts(), "RLIMIT_MEMLOCK (ulimit -l), 65536 bytes"),
        (.tooManyOpenFiles, facts(), "ulimit -n"),
    ]

    @Test(arguments: causes.indices)
    func `what bars io_uring is named with its knob`(_ index: Int) {
        let (errno, facts, says) = Self.causes[index]
        let text = UringRefusal(call: "io_uring_setup", errno: errno, facts: facts).description
        #expect(text.contains("io_uring_setup: "))
        #expect(text.contains(says), "\(text)")
    }

    private static func facts(
        release: String = "6.1.0", sysctl: String? = "0", isFiltered: Bool = false
    ) -> UringRefusal.Facts {
        var facts = UringRefusal.Facts()
        facts.release = release
        facts.sysctl = sysctl
        facts.hasSeccompFilter = isFiltered
        facts.lockedMemoryMax = 65536
        return facts
    }
}
