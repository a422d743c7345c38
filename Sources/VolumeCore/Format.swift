package import Base

// How a file system is created so that the intended kernels can mount it.

extension FormatPlan {
    /// - Parameters:
    ///   - kernelRelease: from `uname -r`; one that cannot be parsed counts as old.
    ///   - legacy: for every kernel since 4.14, instead of the running one.
    package init(_ type: FileSystemType, kernelRelease: String, legacy: Bool) {
        let kernel = legacy ? KernelVersion(4, 14) : KernelVersion(release: kernelRelease)
        switch type {
        case .xfs: self.init(type: type, arguments: xfsArguments(for: kernel))
        case .ext4: self.init(type: type, arguments: ext4Arguments(for: kernel, legacy: legacy))
        }
    }
}

/// Sources: mkfs.xfs(8); bigtime and inobtcount came with Linux 5.10, reflink by default is safe
/// since 4.16, nrext64 came with 5.19.
private func xfsArguments(for kernel: KernelVersion) -> [String] {
    var metadata: [String] = []
    if kernel < KernelVersion(5, 10) { metadata += ["bigtime=0", "inobtcount=0"] }
    if kernel < KernelVersion(4, 16) { metadata.append("reflink=0") }
    var arguments = metadata.isEmpty ? [] : ["-m", metadata.joined(separator: ",")]
    if kernel < KernelVersion(5, 19) { arguments += ["-i", "nrext64=0"] }
    return arguments
}

/// No blocks are reserved for root (`-m 0`), because a data volume has no system to keep alive. The
/// kernel zeroes the inode tables and the journal after mounting: mke2fs would detect this from
/// /sys/fs/ext4, which does not exist before the first ext4 is mounted.
///
/// Sources: mke2fs(8), ext4(5); orphan_file came with Linux 5.15, metadata_csum_seed with 4.4, but
/// the e2fsck and the boot loaders of the time of 4.14 do not all know it.
private func ext4Arguments(for kernel: KernelVersion, legacy: Bool) -> [String] {
    var arguments = ["-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"]
    var unfit: [String] = []
    if legacy || kernel < KernelVersion(4, 4) { unfit.append("^metadata_csum_seed") }
    if kernel < KernelVersion(5, 15) { unfit.append("^orphan_file") }
    if !unfit.isEmpty { arguments += ["-O", unfit.joined(separator: ",")] }
    return arguments
}

private struct KernelVersion: Comparable {
    var major: Int
    var minor: Int

    init(_ major: Int, _ minor: Int) {
        self.major = major
        self.minor = minor
    }

    init(release: String) {
        let numbers = release.split(whereSeparator: { !$0.isNumber && $0 != "." }).first ?? ""
        let version = numbers.split(separator: ".").prefix(2).compactMap { Int($0) }
        self.init(version.first ?? 0, version.dropFirst().first ?? 0)
    }

    static func < (one: Self, other: Self) -> Bool {
        (one.major, one.minor) < (other.major, other.minor)
    }
}
