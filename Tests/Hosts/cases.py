"""What a host has to stand, each case on volumes of its own. A case gets the Host, and fails by
raising."""

import concurrent.futures
import subprocess
import tempfile

from ec2_host import Writer
from host import PLUGIN, readme_commands

MIB = 1 << 20


def fresh(host):
    """A blank volume is formatted, and has what was written when it is attached again."""
    volume = host.new_volume()
    mount = host.run(volume, "grep ' /data ' /proc/mounts; echo hello > /data/file")
    assert mount.split()[2] == "xfs", mount
    host.given_back(volume)
    assert host.run(volume, "cat /data/file") == "hello\n"
    host.given_back(volume)


def formatted(host):
    """A volume with a file system is mounted as it is."""
    volume = host.new_volume(content="ext4")
    uuid = _uuid(host, volume)
    mount = host.run(volume, "grep ' /data ' /proc/mounts; echo kept > /data/file")
    assert mount.split()[2] == "ext4", mount
    host.given_back(volume)
    assert _uuid(host, volume) == uuid
    assert host.run(volume, "cat /data/file") == "kept\n"
    host.given_back(volume)


def _uuid(host, volume):
    return subprocess.run(
        ["blkid", "-p", "-s", "UUID", "-o", "value", host.simulator.backing(volume)], check=True,
        capture_output=True, text=True).stdout


def four_at_once(host):
    """Four containers that start together, each with a volume."""
    volumes = [host.new_volume(content) for content in ("blank", "xfs", "ext4", "blank")]
    with concurrent.futures.ThreadPoolExecutor(len(volumes)) as pool:
        outputs = pool.map(
            lambda volume: host.run(volume, f"echo {volume} > /data/name; cat /data/name"), volumes)
    assert [output.strip() for output in outputs] == volumes
    for volume in volumes:
        host.given_back(volume)


def copy_up(host):
    """Docker copies what the image has at the mountpoint into a blank volume."""
    volume = host.new_volume()
    assert host.run(volume, "cat /data/seed", image="seeded") == "seed\n"
    assert host.run(volume, "cat /data/seed") == "seed\n"
    host.given_back(volume)


def grow_xfs(host):
    _grow(host, "xfs")


def grow_ext4(host):
    _grow(host, "ext4")


def _grow(host, content):
    """A volume that was made larger has the room at its next mount, and what it held."""
    volume = host.new_volume(content, sizeMiB=320)
    host.run(volume, "echo kept > /data/file")
    host.given_back(volume)
    host.simulator.ec2().modify_volume(VolumeId=volume, Size=2)
    output = host.run(volume, "cat /data/file; df -m /data | tail -n 1").split()
    assert output[0] == "kept" and int(output[2]) > 1800, output
    host.given_back(volume)


def partition(host):
    """`-o partition=2` mounts the second partition."""
    volume = host.new_volume(sizeMiB=512)
    file = str(host.simulator.backing(volume))
    subprocess.run(["sfdisk", "--quiet", file], input="start=2048,size=64MiB\nstart=133120\n",
                   check=True, text=True, capture_output=True)
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/file", "w", encoding="ascii") as content:
            content.write("second\n")
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", folder, "-E", f"offset={133120 * 512}", file,
                        "400M"], check=True, capture_output=True)
    host.docker("volume", "create", "-d", PLUGIN, "-o", "partition=2", volume)
    assert host.run(volume, "cat /data/file") == "second\n"
    host.given_back(volume)


def daemon_killed(host):
    """The plugin's process dies: Docker starts it again, and the container never notices."""
    writer = Writer(host, host.new_volume())
    plugin, before = host.plugin_process(), writer.lines()
    host.guest(f"kill -KILL {plugin}")
    host.wait_for_plugin(but_not=plugin)
    assert int(host.run(writer.volume, "tail -n 1 /data/log")) >= before
    writer.wait_for_more(writer.lines())
    assert writer.remove() > before


def upgrade(host):
    """The README's commands put another version in place of the running one."""
    writer = Writer(host, host.new_volume("ext4"))
    before = writer.lines()
    for command in readme_commands("docker plugin rm"):
        host.guest(command)
    host.guest(f"date > /root/{PLUGIN}/rootfs/etc/version")
    host.install(unpack=False)
    writer.wait_for_more(before)
    # Another container joins it.
    assert int(host.run(writer.volume, "tail -n 1 /data/log")) > before
    assert writer.remove() > before


def pulled(host):
    """EC2 detaches a volume that a container is writing to. What was synced is on it, and the next
    container has it, though the other still holds what is left of the device."""
    writer = Writer(host, host.new_volume())
    before = writer.lines()
    host.simulator.ec2().detach_volume(VolumeId=writer.volume, Force=True)
    host.given_back(writer.volume)
    host.wait_until(lambda: host.said(writer.volume, "level=error"),
                    "the plugin's log tells of the loss")
    host.docker("rm", "--force", writer.id)
    assert writer.check() >= before
    host.given_back(writer.volume)


def power_cut(host):
    """The machine loses its power under a container, and starts with the volume attached: Docker
    starts the container again, on the volume where it is."""
    # Time enough for Docker.
    host.change({"DETACH_AFTER": "20s"})
    writer = Writer(host, host.new_volume(), "--restart", "always")
    # Docker writes down without fsync that the container runs; the volume is not in this file
    # system.
    host.guest("sync --file-system /var/lib/docker")
    before = writer.lines()
    host.simulator.reset_counters()
    host.cut_power()
    writer.wait_for_more(before)
    assert host.simulator.calls("AttachVolume") == 0
    assert host.simulator.calls("DetachVolume") == 0
    assert writer.remove() > before


CASES = {
    "fresh": fresh, "formatted": formatted, "four": four_at_once, "copy-up": copy_up,
    "grow-xfs": grow_xfs, "grow-ext4": grow_ext4, "partition": partition,
    "killed": daemon_killed, "upgrade": upgrade, "pulled": pulled, "power-cut": power_cut,
}
