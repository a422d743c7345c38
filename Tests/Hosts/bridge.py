"""Plugs and unplugs a machine's disks as EC2 attaches and detaches volumes.

On Nitro a volume is an NVMe controller with the volume's id as its serial number. On Xen it is a
disk of the name that AttachVolume was given.
"""

import threading
import time
import traceback

LOOK_SECONDS = 0.03
PLUGGED = {"attaching", "attached"}


class Bridge:
    """Follows the attachments to one instance from its start to its stop."""

    def __init__(self, simulator, instance, disks):
        self.simulator, self.instance, self.disks = simulator, instance, disks
        self.plugged = {}
        self.trouble = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._follow)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def _follow(self):
        while not self.stopped.wait(LOOK_SECONDS):
            try:
                self._look()
            except Exception:  # The row fails with it: check().
                if not self.stopped.is_set():
                    self.trouble.append(traceback.format_exc())
                    time.sleep(1)

    def _look(self):
        wanted = {}
        for volume in self.simulator.state()["volumes"]:
            for attachment in volume["attachments"]:
                # The simulator's own device is there: then EC2's has come too.
                if (attachment["instance"] == self.instance and attachment["node"]
                        and attachment["state"] in PLUGGED
                        and not volume["tags"].get("Name") == "root"):
                    wanted[volume["id"]] = attachment["device"]
        for volume in [v for v in self.plugged if self.plugged[v][0] != wanted.get(v)]:
            _, disk = self.plugged.pop(volume)
            self.disks.unplug(volume, disk)
        for volume in wanted.keys() - self.plugged.keys():
            disk = self.disks.plug(volume, self.simulator.backing(volume), wanted[volume])
            self.plugged[volume] = (wanted[volume], disk)

    def machine_restarted(self):
        for volume, (_, disk) in list(self.plugged.items()):
            self.disks.show(volume, disk)

    def check(self):
        if self.trouble:
            raise RuntimeError("a disk could not be plugged or unplugged: " + self.trouble[0])


class NitroDisks:
    def __init__(self, machine):
        self.machine = machine

    def plug(self, volume, file, device):
        return self.machine.plug(volume, file, serial=volume.replace("-", ""))

    def unplug(self, volume, port):
        self.machine.unplug(volume, port)

    def show(self, volume, port):
        """The kernel finds the disks that are there when it starts."""


class XenDisks:
    """A Xen instance shows a volume under the name that AttachVolume was given, /dev/sdf as xvdf,
    and nothing else tells of the volume. Such a name is made here for a disk of virtio's, as a rule
    of udev's may: QEMU without KVM runs no Xen guest."""

    def __init__(self, machine):
        self.machine = machine

    def plug(self, volume, file, device):
        name = "xvd" + device.removeprefix("/dev/").removeprefix("xvd").removeprefix("sd")
        serial = volume.replace("-", "")
        port = self.machine.plug(volume, file, driver="virtio-blk-pci", serial=serial)
        self.show(volume, (port, name))
        return port, name

    def show(self, volume, disk):
        """Makes the disk's name, which a restart of the machine takes away."""
        serial, name = volume.replace("-", ""), disk[1]
        self.machine.run(f"""
            for try in $(seq 600); do
                for disk in /sys/block/vd*; do
                    if [ "$(cat $disk/serial 2>/dev/null)" = {serial} ]; then
                        exec mknod /dev/{name} b $(tr : ' ' < $disk/dev)
                    fi
                done
                sleep 0.1
            done
            echo "no disk has the serial number {serial}" >&2; exit 1""")

    def unplug(self, volume, disk):
        port, name = disk
        self.machine.run(f"rm -f /dev/{name}")
        self.machine.unplug(volume, port)
