"""A copy of QEMU whose NVMe controllers say that they are EBS's.

The daemon takes an NVMe device for a volume only if its controller says, in Identify Controller,
that Amazon made it (vendor 0x1D0F) and that it is an "Amazon Elastic Block Store". QEMU's
controller has neither as a property: the model is a constant string whose address one instruction
of nvme_init_ctrl loads, the vendor a constant that nvme_init_pci computes. Both are changed in a
copy of the program, which is refused unless each is found exactly once.
"""

import os
import pathlib
import re
import struct

MODEL = b"Amazon Elastic Block Store"
AMAZON = 0x1D0F
QEMU_MODEL = b"QEMU NVMe Ctrl"
INTEL, RED_HAT = 0x8086, 0x1B36
# ELF-64: the program headers' types, flags and alignment.
PT_LOAD, PF_X = 1, 1
PAGE = 4096


class Unsuitable(Exception):
    """This QEMU is not one that the change is known for."""


def make(program, copy):
    """Writes `copy`, an executable, made of the QEMU `program`."""
    image = bytearray(pathlib.Path(program).read_bytes())
    try:
        _change_model(image)
        _change_vendor(image)
    except Unsuitable as error:
        raise Unsuitable(f"{program} cannot be given EBS's NVMe controller: {error}") from None
    pathlib.Path(copy).write_bytes(image)
    os.chmod(copy, 0o755)


class Segment:
    """What the kernel maps of the file: `size` bytes at `offset` to `address`."""

    def __init__(self, flags, offset, address, size):
        self.flags, self.offset, self.address, self.size = flags, offset, address, size

    @property
    def end(self):
        return self.offset + self.size

    def address_of(self, offset):
        return offset - self.offset + self.address


def _segments(image):
    if image[:5] != b"\x7fELF\x02":
        raise Unsuitable("it is no 64-bit ELF file")
    table, = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    headers = [struct.unpack_from("<IIQQQQ", image, table + n * size) for n in range(count)]
    return [Segment(flags, offset, address, length)
            for kind, flags, offset, address, _, length in headers if kind == PT_LOAD]


def _only(found, what):
    found = list(found)
    if len(found) != 1:
        raise Unsuitable(f"{what} is there {len(found)} times, not once")
    return found[0]


def _change_model(image):
    segments = _segments(image)
    text = _only((m.start() for m in re.finditer(QEMU_MODEL + b"\0", image)), "its model")
    home = _only((s for s in segments if s.offset <= text < s.end), "the model's segment")
    place = _room_behind(image, home, segments)
    at, address = _only(_loads_of(image, home.address_of(text), segments),
                        "the instruction that loads the model's address")
    image[place:place + len(MODEL) + 1] = MODEL + b"\0"
    struct.pack_into("<i", image, at + 3, home.address_of(place) - (address + 7))


def _room_behind(image, home, segments):
    """Where zeros follow the segment that its last page maps too, whole pages being mapped."""
    place = (home.end + 15) & ~15
    end = place + len(MODEL) + 1
    next_segment = min((s.offset for s in segments if s.offset >= home.end), default=len(image))
    if end > min(-(-home.end // PAGE) * PAGE, next_segment) or any(image[home.end:end]):
        raise Unsuitable("there is no room for another model behind the segment of the old one")
    return place


def _loads_of(image, target, segments):
    """The `lea target(%rip), register` of 64 bits: their offsets and addresses."""
    for segment in segments:
        if not segment.flags & PF_X:
            continue
        code = bytes(image[segment.offset:segment.end])
        # REX.W, with or without R; 8D; ModRM: RIP and 32 bits of distance.
        for match in re.finditer(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", code):
            at = segment.offset + match.start()
            distance, = struct.unpack_from("<i", image, at + 3)
            if segment.address_of(at) + 7 + distance == target:
                yield at, segment.address_of(at)


def _change_vendor(image):
    """`and $(RED_HAT - INTEL), %dx`: of all ones or none, whether Intel's id is asked for; INTEL is
    added next."""
    instruction = b"\x66\x81\xe2"
    mask = struct.pack("<H", (RED_HAT - INTEL) & 0xFFFF)
    at = _only((m.start() for m in re.finditer(re.escape(instruction + mask), image)),
               "the vendor's computation")
    struct.pack_into("<H", image, at + len(instruction), (AMAZON - INTEL) & 0xFFFF)
