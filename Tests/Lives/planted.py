"""Hand-written faults that no rule of mutations.py produces."""

import dataclasses

AGENT = "Agent/VolumeManager"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Text to insert before and after a text that occurs exactly once in a file. ON is true if the
    fault is active."""
    name: str
    file: str
    text: str
    before: str
    after: str = ""


def left_out(name, file, text):
    return Fault(name, file, text, "if !ON { ", " }")


def instead(name, file, text, other):
    """Replaces one statement by another."""
    return Fault(name, file, text, f"if ON {{ {other} }} else {{ ", " }")


FAULTS = [
    left_out("the linger is not ended by Mount", f"{AGENT}+GiveBack.swift",
             "volume.givingBack?.cancel()"),
    Fault("a failed unmount counts as done", f"{AGENT}+Mount.swift",
          'log.error("unmount failed"', "if ON { volume.state.unmounted() }; "),
    left_out("counts without a mount outlive a restart", f"{AGENT}+Start.swift",
             "volume.record.mounts = MountCounts()"),
    instead("a failed step of giving back is not repeated", "VolumeCore/GiveBack.swift",
            "earliest = now + backoff.next()", "earliest = now + .seconds(1_000_000)"),
    Fault("the lease is not written again after the linger", "VolumeCore/VolumeState.swift",
          "package mutating func leaseRemoved() {", "", " if ON { lease = .certain; return };"),
    left_out("a Mount does not wait for the lease's dropping", "Agent/LeaseKeeper.swift",
             "volume.leaseDrop = task"),
    Fault("unknown data is formatted", "VolumeCore/Decisions.swift", "case .unknownData:\n",
          "case .unknownData where ON && !options.readOnly: self = .format\n"),
    Fault("the lease of an owner that is stopping is broken", "VolumeCore/Takeover.swift",
          "if isGoingDown || now < facts.patience {",
          "if ON, isGoingDown { return detachSoon(facts, now) }\n        "),
    Fault("an owner that EC2 does not know is detached by force", "VolumeCore/Takeover.swift",
          "guard let description, !description.isHibernated else { return false }",
          "if ON, description == nil { return true }\n        "),
    Fault("a detachment is forced however old its look is", "VolumeCore/Approach.swift",
          "seen.askedAt + Limit.ownerLookAgeMax)", "ON ? Instant(nanoseconds: .max) : "),
    instead("an ID is counted once", "VolumeCore/VolumeRecord.swift",
            "counts[id, default: 0] += 1", "counts[id] = 1"),
]
