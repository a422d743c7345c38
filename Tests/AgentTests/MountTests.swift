import Agent
import Base
import Testing
import VolumeCore

@Suite struct MountTests {
    @Test func `a new volume is mounted after one EC2 call, and two while its device is awaited`()
        throws
    {
        let fixture = Fixture(.blank)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let mountpoint = try await manager.mount(Fixture.name, id: "a")
            #expect(mountpoint == Fixture.mountpoint)
        }
        #expect(fixture.host.formatted == [Fixture.id])
        #expect(fixture.host.mounts[Fixture.mountpoint]?.type == "xfs")
        #expect(
            fixture.cloud.calls == [
                "DescribeVolumes \(Fixture.id)", "AttachVolume \(Fixture.id) /dev/sdf",
                "CreateTags \(Fixture.id) \(AttachmentMark.tag)="
                    + "\(Fixture.here) \(Fixture.id) /dev/sdf,\(Lease.tag)=\(Fixture.here)",
                "DescribeVolumes \(Fixture.id)",
            ])
    }

    @Test func `a file system that is there is mounted as it is`() throws {
        let fixture = Fixture(.fileSystem(type: "ext4", label: "a b", uuid: nil))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.formatted.isEmpty)
        #expect(fixture.host.mounts[Fixture.mountpoint]?.type == "ext4")
    }

    @Test func `a volume unmounted a moment ago is mounted without an EC2 call`() throws {
        let fixture = Fixture(Fixture.xfs)
        let calls = try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "copy-up")
            try await manager.unmount(Fixture.name, id: "copy-up")
            try await fixture.sleep(.seconds(1))
            let before = fixture.cloud.calls.count
            _ = try await manager.mount(Fixture.name, id: "a")
            return fixture.cloud.calls.count - before
        }
        #expect(calls == 0)
    }

    @Test func `a lingering volume is marked, and EC2 asked, while it is mounted`() throws {
        let fixture = Fixture(Fixture.xfs)
        let taken = try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(5))
            fixture.host.mountTime = .seconds(1)
            let start = fixture.now
            _ = try await manager.mount(Fixture.name, id: "b")
            return fixture.now - start
        }
        #expect(taken == .seconds(1))
        #expect(fixture.cloud.calls(of: "CreateTags").count == 2)
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `a volume that somebody attached here is used, and left attached`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            #expect(fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] == "\(Fixture.here)")
            try await manager.unmount(Fixture.name, id: "a")
            try await manager.remove(Fixture.name)
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.host.mounts.isEmpty)
        #expect(fixture.cloud.volumes[Fixture.id]?.tags.isEmpty == true)
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
        #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
    }

    @Test func `a Multi-Attach volume that somebody attached is looked at before it is mounted`()
        throws
    {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.here)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.volumes[Fixture.id]?.multiAttachEnabled = true
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        #expect(fixture.host.everMounted.isEmpty)
    }

    @Test func `a volume attached elsewhere is detached there and attached here`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(
            fixture.cloud.calls(of: "DetachVolume") == [
                "DetachVolume \(Fixture.id) \(Fixture.other)"
            ])
        #expect(fixture.cloud.volumes[Fixture.id]?.attachments.first?.instance == Fixture.here)
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `Mounts of one volume at once are one attachment, and each counts`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let calls = (0..<5).map { number in
                fixture.start { try await $0.mount(Fixture.name, id: "\(number)") }
            }
            for call in calls { _ = try await call.value }
            for number in 0..<4 { try await manager.unmount(Fixture.name, id: "\(number)") }
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
            try await manager.unmount(Fixture.name, id: "4")
            #expect(fixture.host.mounts.isEmpty)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `docker cp, which mounts by the running container's ID, does not unmount it`() throws
    {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
        }
    }

    @Test func `an Unmount of an ID that mounted nothing unmounts nothing`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "b")
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
        }
    }

    @Test func `8 volumes at once take the time of one, each by a name of its own`() throws {
        let fixture = Fixture()
        let ids = (0..<8).compactMap { VolumeID("vol-0000000\($0)") }
        for id in ids { fixture.cloud.add(id, Fixture.xfs) }
        let (one, eight) = try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            for id in ids { try await manager.create("\(id)", options: [:]) }
            let start = fixture.now
            _ = try await manager.mount(Fixture.name, id: "a")
            let middle = fixture.now
            let calls = ids.map { id in fixture.start { try await $0.mount("\(id)", id: "a") } }
            for call in calls { _ = try await call.value }
            return (middle - start, fixture.now - middle)
        }
        #expect(eight <= one * 1.1)
        let names = fixture.cloud.volumes.values.flatMap(\.attachments).compactMap(\.device)
        #expect(Set(names).count == 9)
    }

    @Test func `an abandoned Mount continues uncounted, and the retry is answered at once`() throws
    {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.milliseconds(500))
            cut.cancel()
            _ = await cut.result
            let before = fixture.now
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.now == before)
            try await manager.unmount(Fixture.name, id: "b")
            #expect(fixture.host.mounts.isEmpty)
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
    }

    @Test func `an unmount that fails says so, and is done later`() throws {
        let fixture = Fixture()
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.host.busyUnmounts = 1
            await #expect(throws: OperationError.self) {
                try await manager.unmount(Fixture.name, id: "a")
            }
            try await fixture.sleep(.seconds(60))
            #expect(fixture.host.mounts.isEmpty)
        }
    }
}

@Suite struct RemountTests {
    @Test func `options that changed after an abandoned Mount are used by the next one`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            cut.cancel()
            _ = await cut.result
            #expect(fixture.host.mounts[Fixture.mountpoint]?.readOnly == false)
            try await manager.remove(Fixture.name)
            try await manager.create(Fixture.name, options: ["read-only": "true"])
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.host.mounts[Fixture.mountpoint]?.readOnly == true)
        }
    }

    @Test func `options that changed while nothing was mounted cost no second mount`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(600))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await manager.create(Fixture.name, options: ["read-only": "true"])
            fixture.host.busyUnmounts = 1
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.host.busyUnmounts == 1)
            fixture.host.busyUnmounts = 0
        }
    }

    @Test func `a file system that has shut down is mounted again`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.host.broken = [Fixture.mountpoint]
            _ = try await manager.mount(Fixture.name, id: "b")
            #expect(fixture.host.broken.isEmpty)
            try await manager.unmount(Fixture.name, id: "a")
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
            try await manager.unmount(Fixture.name, id: "b")
            #expect(fixture.host.mounts.isEmpty)
        }
    }

    @Test func `an abandoned mount keeps other hosts off for a minute, whatever the linger`()
        throws
    {
        let fixture = Fixture(Fixture.xfs, detachAfter: .seconds(7200))
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let cut = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            cut.cancel()
            _ = await cut.result
            #expect(fixture.cloud.volumes[Fixture.id]?.tags.isEmpty == false)
            try await fixture.sleep(.seconds(90))
            #expect(fixture.host.mounts.isEmpty)
            #expect(fixture.cloud.volumes[Fixture.id]?.tags[Lease.tag] == nil)
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
        }
    }
}

@Suite struct AttachFaultTests {
    @Test func `a volume that was made a Multi-Attach one after Create gets no second writer`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.latency.device = .milliseconds(1)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.volumes[Fixture.id]?.multiAttachEnabled = true
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.host.everMounted.isEmpty)
        #expect(fixture.cloud.volumes[Fixture.id]?.attachments.isEmpty == true)
    }

    @Test func `an attachment that was merely looked up and has ended is begun again`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostAnswers = ["AttachVolume"]
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(2))
            fixture.cloud.lostDevices = []
            fixture.cloud.add(Fixture.id, Fixture.xfs)
            _ = try await mount.value
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 2)
    }

    @Test func `a device name that EC2 says is in use is passed over`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.otherDeviceNames = ["/dev/sdf", "/dev/sdg"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.attachments.first?.device == "/dev/sdh")
    }

    @Test func `names in use on this instance are known once they were read`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.otherDeviceNames = ["/dev/sdf", "/dev/sdg"]
        try fixture.run { manager in
            try await manager.learnAttachments()
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(
            fixture.cloud.calls(of: "AttachVolume") == ["AttachVolume \(Fixture.id) /dev/sdh"])
    }

    @Test func `after a lost response to AttachVolume there is a look, not another call`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostAnswers = ["AttachVolume"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.cloud.calls(of: "AttachVolume").count == 1)
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `after a lost response to DetachVolume there is a look`() throws {
        let fixture = Fixture()
        fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
        fixture.cloud.lostAnswers = ["DetachVolume"]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
    }

    @Test func `a volume that was taken after Create is taken back`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            _ = try await manager.mount(Fixture.name, id: "a")
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.attachments.first?.instance == Fixture.here)
    }

    @Test func `a device that never appears is an error in time, and is released`()
        throws
    {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let start = fixture.now
            await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
            #expect(fixture.now - start <= Limit.mountTimeMax + .seconds(1))
            try await fixture.sleep(.seconds(60))
        }
        #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
    }

    @Test func `a volume detached while its device is awaited is an error soon`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.lostDevices = [Fixture.id]
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            let mount = fixture.start { try await $0.mount(Fixture.name, id: "a") }
            try await fixture.sleep(.seconds(2))
            fixture.cloud.add(Fixture.id, Fixture.xfs, attachedTo: Fixture.other)
            let start = fixture.now
            guard case .failure(let error) = await mount.result else {
                Issue.record("it was mounted")
                return
            }
            #expect("\(error)".contains("\(Fixture.other)"))
            #expect(fixture.now - start < .seconds(10))
        }
    }

    @Test func `EC2's refusal reaches the operator with its code`() throws {
        let fixture = Fixture(Fixture.xfs)
        fixture.cloud.refusals["AttachVolume"] = [
            .refused(code: "AttachmentLimitExceeded", message: "28 of 28", requestID: "r-1")
        ]
        let error = try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            return await #expect(throws: OperationError.self) {
                try await manager.mount(Fixture.name, id: "a")
            }
        }
        let text = error?.description ?? ""
        for part in ["\(Fixture.id)", "\(Fixture.here)", "AttachmentLimitExceeded", "28 of 28"] {
            #expect(text.contains(part))
        }
        #expect(fixture.host.mounts.isEmpty)
    }
}

@Suite struct GiveBackTests {
    @Test func `an unused volume is detached after the linger, and its name is free again`() throws
    {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(14))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
            try await fixture.sleep(.seconds(10))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
            #expect(try await manager.get(Fixture.name).phase == "detached")
        }
    }

    @Test func `a Mount during the linger keeps the volume`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "copy-up")
            try await manager.unmount(Fixture.name, id: "copy-up")
            try await fixture.sleep(.seconds(10))
            _ = try await manager.mount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(60))
            #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
        }
    }

    @Test func `a Mount during the detachment attaches the volume again`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.milliseconds(15_500))
            #expect(try await manager.get(Fixture.name).phase == "detaching")
            _ = try await manager.mount(Fixture.name, id: "b")
            try await fixture.sleep(.seconds(60))
            #expect(fixture.host.mounts[Fixture.mountpoint] != nil)
        }
    }

    @Test func `a device that something holds is not detached before it is let go`() throws {
        let fixture = Fixture(Fixture.xfs)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            fixture.host.held = [Fixture.id]
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(120))
            #expect(fixture.cloud.calls(of: "DetachVolume").isEmpty)
            fixture.host.held = []
            try await fixture.sleep(.seconds(60))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        }
    }

    @Test func `a detachment that EC2 throttles is tried until it is done`() throws {
        let fixture = Fixture(Fixture.xfs)
        let throttled = EC2Failure.refused(
            code: "RequestLimitExceeded", message: "slow down", requestID: "r")
        fixture.cloud.refusals["DetachVolume"] = Array(repeating: throttled, count: 3)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(200))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .available)
        }
    }

    @Test func `with no linger set the volume stays`() throws {
        let fixture = Fixture(Fixture.xfs, detachAfter: nil)
        try fixture.run { manager in
            try await manager.create(Fixture.name, options: [:])
            _ = try await manager.mount(Fixture.name, id: "a")
            try await manager.unmount(Fixture.name, id: "a")
            try await fixture.sleep(.seconds(100_000))
            #expect(fixture.cloud.volumes[Fixture.id]?.state == .inUse)
        }
    }
}
