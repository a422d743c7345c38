import Base

@testable import Linux

/// A superblock that is accepted has possible sizes, and whatever it says can be reported.
func brokenSuperblock(_ bytes: [UInt8]) -> String? {
    let padded = bytes.prefix(1024) + [UInt8](repeating: 0, count: max(0, 1024 - bytes.count))
    if let ext = ExtSuperblock(Array(padded.prefix(ExtSuperblock.size))) {
        guard ext.blockSize.nonzeroBitCount == 1, (1024...65_536).contains(ext.blockSize) else {
            return "an ext has blocks of \(ext.blockSize) bytes"
        }
        let all = circumstances.map { MountRefusal.findings(ext, $0) }
        if let broken = broken(by: all) { return "an ext \(broken)" }
    }
    if let xfs = XFSSuperblock(Array(padded.prefix(XFSSuperblock.size))) {
        guard xfs.version >= 5 || xfs.incompatibleFeatures == 0 else {
            return "an old xfs has features"
        }
        let all = circumstances.map { MountRefusal.findings(xfs, $0) }
        if let broken = broken(by: all) { return "an xfs \(broken)" }
    }
    return nil
}

/// Of a read-only mount and a writable one.
private let circumstances = [false, true].map {
    MountRefusal.Circumstances(
        deviceSize: 1 << 30, pageSize: 4096, kernelRelease: "6.1.0-18-amd64", isWritable: $0,
        deviceAcceptsNoWrites: $0)
}

/// What hinders a read-only mount also hinders a writable one, and each finding has its advice.
private func broken(by all: [[MountRefusal.Finding]]) -> String? {
    guard all[0].allSatisfy(all[1].contains) else { return "is refused only if it is read-only" }
    return all.joined().allSatisfy { !$0.found.isEmpty && !$0.advice.isEmpty }
        ? nil : "has a finding without a text"
}
