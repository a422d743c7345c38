/// How long things take in a life, in milliseconds: each time is drawn from its range.
struct LifeTimes {
    /// From the sending of a call until EC2 applies it, and then until its response arrives.
    var call = 5...60
    var response = 5...40
    /// From AttachVolume until the device appears, and until EC2 reports the volume as `attached`.
    var device = 300...2500
    var attached = 300...2500
    /// From DetachVolume until the device disappears, and then until EC2 reports the volume as
    /// free.
    var detach = 500...4000
    var free = 100...1500
    // What the kernel and its programs do.
    var find = 1...2
    var probe = 2...20
    var format = 200...3000
    var mount = 2...60
    var grow = 1...20
    var unmount = 2...60
    var open = 1...3
    var listMounts = 1...2
    // The state files.
    var load = 1...3
    var save = 1...30
    var saveCounts = 1...2
}
