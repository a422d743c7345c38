"""Builds the guests' disks and kernels from Debian packages, and keeps them in .build/hosts.

An image consists of a Debian release, which provides the Docker Engine, and a kernel of the same or
another release. A release is downloaded and unpacked once, in a minute or two, and kept as a tar;
making an image of it with a kernel takes seconds.
"""

import contextlib
import hashlib
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import ebs_controller
from simulator import ROOT

CACHE = ROOT / ".build" / "hosts"
DISK_MIB = 4096  # sparse
# The root partition is identified by this: if volumes are attached at the start, newer kernels
# number NVMe disks at random.
ROOT_PARTITION = "7c1f2c1e-5f0b-4c5e-9d1e-3b0a4de00001"
PACKAGES = ["base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "sed",
            "tar", "gzip", "mount", "util-linux", "procps", "kmod", "iproute2", "curl",
            "busybox-static", "qemu-guest-agent", "docker.io", "e2fsprogs", "xfsprogs"]
# Releases whose docker.io has the command in another package.
SPLIT_CLIENT = {"trixie", "sid"}
# It also contains sid's key, which apt does not trust by default.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SKIPPED = ["doc", "man", "info", "locale", "perl", "zoneinfo", "bash-completion", "i18n"]
QEMU = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
GUEST = pathlib.Path(__file__).resolve().parent / "guest"
BARRIER = GUEST.parent / "without_io_uring.c"


class Image:
    """A disk to boot with its kernel."""

    def __init__(self, disk, kernel, version):
        self.disk, self.kernel, self.version = disk, kernel, version


def image(release, kernel_release, architecture="amd64"):
    """The image of a Debian release with the cloud kernel of `kernel_release`; made if missing."""
    kernel, modules, version = _kernel(kernel_release, architecture)
    root = _root(release, architecture)
    name = f"{release}-{version}-"
    disk = CACHE / f"{name}{_digest(root.name, *_recipe())}.img"
    if not disk.exists():
        for old in CACHE.glob(f"{name}*.img"):
            old.unlink()
        _say(f"the disk of {release} with Linux {version}")
        with _folder() as folder:
            tree = folder / "root"
            tree.mkdir()
            _run("tar", "--extract", "--numeric-owner", "--file", root, "--directory", tree,
                 *(f"--exclude=./usr/share/{name}/*" for name in SKIPPED))
            shutil.copytree(modules, tree / "usr/lib/modules" / version, symlinks=True)
            _furnish(tree, architecture)
            _make_disk(folder / "disk", tree)
            os.replace(folder / "disk", disk)
    return Image(disk, kernel, version)


def _make_disk(disk, tree):
    """A partition between a MiB and a MiB, for the table and its copy, with a file system of
    `tree`."""
    with open(disk, "wb") as file:
        file.truncate(DISK_MIB << 20)
    size = DISK_MIB - 2
    _run("sfdisk", "--quiet", disk,
         input=f"label: gpt\nstart=1MiB, size={size}MiB, uuid={ROOT_PARTITION}\n")
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", f"lazy_itable_init=1,offset={1 << 20}", "-d", tree,
         disk, f"{size}M")


def qemu(architecture):
    """The QEMU whose NVMe controllers look like those of EBS."""
    program = shutil.which(QEMU[architecture])
    if program is None:
        raise FileNotFoundError(f"no {QEMU[architecture]}: make test-hosts installs it")
    recipe = pathlib.Path(ebs_controller.__file__).read_bytes()
    stat = os.stat(program)
    copy = CACHE / f"{QEMU[architecture]}-{_digest(stat.st_size, stat.st_mtime_ns, recipe)}"
    if not copy.exists():
        with _folder() as folder:
            ebs_controller.make(program, folder / "qemu")
            os.replace(folder / "qemu", copy)
    return copy


# A release's root


def _root(release, architecture):
    """Packages are only unpacked; none of their scripts run, so no emulator is needed. The guest's
    init does not need what the scripts would create."""
    packages = PACKAGES + (["docker-cli"] if release in SPLIT_CLIENT else [])
    tar = CACHE / f"{release}-{architecture}-{_digest(packages)}.tar"
    if not tar.exists():
        _say(f"the packages of {release} for {architecture}, which takes some minutes")
        with _folder() as folder:
            _run("mmdebstrap", "--quiet", "--variant=extract", "--mode=root",
                 f"--architectures={architecture}", f"--include={','.join(packages)}",
                 "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
                 '--aptopt=APT::Install-Recommends "false"',
                 # A mirror may be older than the validity of Debian's Release files.
                 '--aptopt=Acquire::Check-Valid-Until "false"',
                 release, folder / "root.tar", *_sources(release))
            os.replace(folder / "root.tar", tar)
    return tar


def _furnish(tree, architecture):
    """Does what the packages' scripts would do, as far as it matters here, and adds the guest's own
    files."""
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    if not (tree / "usr/bin/sh").exists():
        (tree / "usr/bin/sh").symlink_to("dash")
    for folder in ("proc", "sys", "dev", "run", "tmp", "etc/docker", "var/lib/docker"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    # The programs of docker.io and busybox look for their sockets there.
    shutil.rmtree(tree / "var/run", ignore_errors=True)
    (tree / "var/run").symlink_to("/run")
    shutil.copytree(GUEST, tree / "guest")
    if architecture == "amd64":
        _run("gcc", "-O2", "-static", "-o", tree / "guest/without-io-uring", BARRIER)
    (tree / "guest/init").symlink_to("/bin/busybox")
    shutil.copy(GUEST / "inittab", tree / "etc/inittab")
    # A plugin has the host's.
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").touch()
    (tree / "etc/docker/daemon.json").write_text('{"iptables": false, "bridge": "none"}\n')


# A kernel


def _kernel(release, architecture):
    """The kernel, the folder of its modules, and its version; downloaded if missing."""
    folder = CACHE / f"linux-{release}-{architecture}"
    if not folder.exists():
        _say(f"the kernel of {release} for {architecture}")
        with _folder() as scratch:
            _unpack_kernel(release, architecture, scratch)
            os.rename(scratch / "kernel", folder)
    [version] = os.listdir(folder / "modules")
    return folder / f"vmlinuz-{version}", folder / "modules" / version, version


def _unpack_kernel(release, architecture, scratch):
    apt = _private_apt(release, architecture, scratch)
    meta = f"linux-image-cloud-{architecture}"
    depends = _run("apt-cache", *apt, "depends", meta, capture=True)
    [package] = set(re.findall(r"Depends: (linux-image-\d\S+)", depends))
    # In sid, the kernel and its modules are in packages that this one only depends on.
    needs = _run("apt-cache", *apt, "depends", package, capture=True)
    packages = {package, *re.findall(r"Depends: (linux-(?:base|modules|binary)-\d\S+)", needs)}
    _run("apt-get", *apt, "download", *sorted(packages), cwd=scratch)
    tree = scratch / "tree"
    for archive in scratch.glob("linux-*.deb"):
        _run("dpkg-deb", "--extract", archive, tree)
    # Older packages have their modules in /lib.
    [modules] = [path for path in (tree / "lib/modules", tree / "usr/lib/modules") if path.exists()]
    [version] = os.listdir(modules)
    [kernel] = [path for path in (tree / f"boot/vmlinuz-{version}", modules / version / "vmlinuz")
                if path.exists()]
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")
    _run("depmod", "--basedir", tree, version)
    (scratch / "kernel").mkdir()
    os.rename(kernel, scratch / f"kernel/vmlinuz-{version}")
    os.rename(modules, scratch / "kernel/modules")
    for build in (scratch / "kernel/modules" / version).glob("build"):
        build.unlink()


def _private_apt(release, architecture, scratch):
    """apt's options for a release that is not this machine's, its lists fetched."""
    (scratch / "sources").write_text("\n".join(_sources(release)) + "\n", encoding="utf-8")
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    options = {
        "Dir::Etc::SourceList": scratch / "sources", "Dir::Etc::SourceParts": "-",
        "Dir::State": scratch / "state", "Dir::Cache": scratch / "cache",
        "Dir::State::Status": "/dev/null", "APT::Architecture": architecture,
        "APT::Architectures": architecture, "APT::Sandbox::User": "root",
        "Acquire::Check-Valid-Until": "false", "Acquire::Languages": "none",
    }
    apt = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run("apt-get", *apt, "--quiet=2", "update")
    return apt


# Debian's archive


def _sources(release):
    """sources.list's lines for a release, from where this machine has its own."""
    main, security = _archives()
    if release == "sid":
        return [f"deb [signed-by={KEYRING}] {main} {release} main"]
    return [f"deb {security} {release}-security main"] + (
        # Debian supports this release only with security updates.
        [] if release == "bullseye" else [f"deb {main} {release} main"])


def _archives():
    listed = _run("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)",
                  "Created-By: Packages", capture=True).splitlines()
    found = dict(reversed([line.split(" ") for line in listed if line.count(" ") == 1]))
    return (found.get("Debian", "http://deb.debian.org/debian/"),
            found.get("Debian-Security", "http://deb.debian.org/debian-security/"))


# Helpers


def _recipe():
    """What the disk is made of beside the packages."""
    files = [BARRIER, *sorted(GUEST.iterdir())]
    return [inspect.getsource(_furnish), inspect.getsource(_make_disk), ROOT_PARTITION,
             SKIPPED, DISK_MIB, *(path.read_bytes() for path in files)]


def _digest(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


@contextlib.contextmanager
def _folder():
    """A folder in the cache for unfinished results, so that none of them is kept."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="making-") as folder:
        yield pathlib.Path(folder)


def _say(what):
    print(f"Making {what}.", flush=True)


def _run(*command, capture=False, cwd=None, input=""):
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, text=True, input=input,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1800)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {result.returncode}:\n"
                           f"{(result.stderr or result.stdout)[-3000:]}")
    return result.stdout if capture else None
