"""Lists the hosts on which the plugin is tested: the kernel, the Docker Engine, and what blocks
io_uring."""

import dataclasses

from simulator import ROOT

PLUGIN = "polarity-ecs-ebs-plugin"


@dataclasses.dataclass(frozen=True)
class Row:
    """`release` is the Debian release that provides the Docker Engine, `kernel` the one that
    provides the kernel; `loop_reason` is a word from the reason why the daemon uses epoll, and
    empty if it uses io_uring.
    """

    name: str
    release: str
    kernel: str
    loop_reason: str = ""
    cgroup: str = "v2"
    kernel_options: tuple = ()
    architecture: str = "amd64"
    disks: str = "nitro"
    # Cases that are not run on this host.
    without: tuple = ()

    @property
    def tarball(self):
        return ROOT / f"{PLUGIN}.{self.architecture}.tar.gz"

    @property
    def detach_milliseconds(self):
        # Without ACPI hot-plug, pressing a slot's button can be revoked for 5 s.
        return 10_000 if self.architecture == "arm64" else 2_000


# Two machines run at a time; the slowest row comes first, so that none runs alone at the end.
ROWS = [
    Row("arm64", "bookworm", "bookworm", architecture="arm64"),
    Row("6.1", "bookworm", "bookworm"),
    Row("5.10", "bookworm", "bullseye", cgroup="v1", kernel_options=("cgroup=v1",)),
    Row("6.12", "trixie", "trixie"),
    Row("sid", "sid", "sid"),
    Row("seccomp", "bookworm", "bookworm", loop_reason="seccomp",
        kernel_options=("engine-under=/guest/without-io-uring",)),
    Row("sysctl", "trixie", "trixie", loop_reason="kernel.io_uring_disabled", cgroup="v1",
        kernel_options=("cgroup=v1", "sysctl.kernel.io_uring_disabled=2")),
    Row("5.10-sid", "sid", "bullseye"),
    # Only the kernel names partitions, and it has other names for these disks.
    Row("xen", "bookworm", "bookworm", disks="xen", without=("partition",)),
]
