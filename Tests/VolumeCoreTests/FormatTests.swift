import Base
import Testing
import VolumeCore

@Suite struct FormatTests {
    @Test(arguments: [
        ("4.14.355-275.570.amzn2", ["-m", "bigtime=0,inobtcount=0,reflink=0", "-i", "nrext64=0"]),
        ("5.4.0", ["-m", "bigtime=0,inobtcount=0", "-i", "nrext64=0"]),
        ("5.10.0-30-amd64", ["-i", "nrext64=0"]),
        ("6.1.0", []), ("6.18.44-x", []), ("5.10+", ["-i", "nrext64=0"]), ("5.19-rc3", []),
        ("", ["-m", "bigtime=0,inobtcount=0,reflink=0", "-i", "nrext64=0"]),
    ])
    func `an xfs is one that the kernel mounts`(release: String, arguments: [String]) {
        let plan = FormatPlan(.xfs, kernelRelease: release, legacy: false)
        #expect(plan == FormatPlan(type: .xfs, arguments: arguments))
    }

    @Test(arguments: [
        ("4.1.0", "^metadata_csum_seed,^orphan_file"), ("5.10.0-30-amd64", "^orphan_file"),
        ("", "^metadata_csum_seed,^orphan_file"), ("6.1.0", nil),
    ])
    func `an ext4 is one that the kernel mounts`(release: String, without: String?) {
        let plan = FormatPlan(.ext4, kernelRelease: release, legacy: false)
        #expect(plan.type == .ext4)
        #expect(plan.arguments.contains("lazy_itable_init=1,lazy_journal_init=1"))
        let option = plan.arguments.firstIndex(of: "-O").map { plan.arguments[$0 + 1] }
        #expect(option == without)
    }

    @Test func `a volume meant for older kernels is made for them`() {
        #expect(
            FormatPlan(.xfs, kernelRelease: "6.18.0", legacy: true)
                == FormatPlan(.xfs, kernelRelease: "4.14.0", legacy: false))
        let ext4 = FormatPlan(.ext4, kernelRelease: "6.18.0", legacy: true)
        #expect(ext4.arguments.contains("^metadata_csum_seed,^orphan_file"))
    }
}
