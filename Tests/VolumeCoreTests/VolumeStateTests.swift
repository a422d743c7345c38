import Base
import Foundation
import Testing
import VolumeCore

/// Each pair of a state and an event. What is expected stands in docs/volume-states.md.
@Suite struct VolumeStateTests {
    private static let id = VolumeID(literal: "vol-0123456789abcdef0")
    private static let instance = InstanceID(literal: "i-0123456789abcdef0")
    private static let device = BlockDevice(
        path: "/dev/nvme1n1", number: DeviceNumber(major: 259, minor: 1))
    private static let start = Instant(nanoseconds: 100_000_000_000)

    typealias Event = (name: String, apply: (inout VolumeState) -> Void)

    private static let accepted = VolumeAttachment(
        volume: id, instance: instance, device: "/dev/sdg", state: .attaching)

    private static func fresh(_ name: String? = nil) -> VolumeState {
        VolumeState(of: VolumeRecord(id: id, createdAt: 0, deviceName: name))
    }

    // MARK: The attachment

    private static let attachmentStates: [(name: String, state: VolumeState)] = [
        ("away", fresh()), ("away, departing", made { $0.detachedStuck() }),
        ("recorded f", fresh("/dev/sdf")), ("attaching f", made { $0.attachBegan(as: "/dev/sdf") }),
        (
            "attaching f, departing",
            made {
                $0.detachedStuck()
                $0.attachBegan(as: "/dev/sdf")
            }
        ), ("attached f", made { $0.attached(as: "/dev/sdf") }),
        ("attached", made { $0.deviceFound() }),
        ("presumed f", made(fresh("/dev/sdf")) { $0.takenUp(isPresent: false) }),
        (
            "detaching f",
            made {
                $0.attached(as: "/dev/sdf")
                $0.detachBegan()
            }
        ),
        (
            "detaching",
            made {
                $0.deviceFound()
                $0.detachBegan()
            }
        ),
    ]

    private static func made(
        _ state: VolumeState = fresh(), _ change: (inout VolumeState) -> Void
    ) -> VolumeState {
        var state = state
        change(&state)
        return state
    }

    private static var attachmentEvents: [Event] {
        [
            ("takenUp, present", { $0.takenUp(isPresent: true) }),
            ("takenUp, absent", { $0.takenUp(isPresent: false) }),
            ("deviceFound", { $0.deviceFound() }),
            ("attachBegan g", { $0.attachBegan(as: "/dev/sdg") }),
            (
                "attachAccepted g",
                { $0.attachAccepted(accepted, as: "/dev/sdg", at: start) }
            ), ("attachUnanswered", { $0.attachUnanswered(as: "/dev/sdf", at: start) }),
            ("attachRefused", { $0.attachRefused(as: "/dev/sdg", wasOurs: false) }),
            ("attached g", { $0.attached(as: "/dev/sdg") }),
            ("seenElsewhere", { $0.seenElsewhere() }),
            ("detachBegan", { $0.detachBegan() }),
            ("detached", { $0.detached() }), ("detachedStuck", { $0.detachedStuck() }),
            ("claimDropped", { $0.claimDropped() }), ("disowned", { $0.disowned() }),
            ("nameReleased", { $0.nameReleased() }),
        ]
    }

    private static func text(_ attachment: VolumeState.Attachment) -> String {
        func named(_ word: String, _ name: String?) -> String {
            name.map { "\(word) \($0.suffix(1))" } ?? word
        }
        return switch attachment {
        case .away(let departs): departs ? "away, departing" : "away"
        case .recorded(let name): named("recorded", name)
        case .attaching(let name, let departs):
            named("attaching", name) + (departs ? ", departing" : "")
        case .attached(let name, let isPresumed):
            named(isPresumed ? "presumed" : "attached", name)
        case .detaching(let name, let isPresumed):
            named("detaching", name) + (isPresumed ? ", presumed" : "")
        }
    }

    // MARK: The lease

    private static let leaseStates: [(name: String, state: VolumeState)] = {
        let here = made { $0.attached(as: "/dev/sdf") }
        return [
            ("none", here), ("writing", made(here) { $0.leaseWritingBegan() }),
            ("uncertain", made(here) { $0.leasePresumed() }),
            ("certain", made(here) { $0.leaseSeen() }),
            (
                "removing",
                made(here) {
                    $0.leaseSeen()
                    $0.leaseRemovalBegan()
                }
            ),
        ]
    }()

    private static var leaseEvents: [Event] {
        [
            ("leasePresumed", { $0.leasePresumed() }),
            ("leaseWritingBegan", { $0.leaseWritingBegan() }),
            ("leaseWritingEnded", { $0.leaseWritingEnded() }),
            ("leaseRefused", { $0.leaseRefused() }), ("leaseSeen", { $0.leaseSeen() }),
            ("leaseDoubted", { $0.leaseDoubted() }),
            ("leaseRemovalBegan", { $0.leaseRemovalBegan() }),
            ("leaseRemovalFailed", { $0.leaseRemovalFailed() }),
            ("leaseRemoved", { $0.leaseRemoved() }),
            ("mark stays", { $0.markEnded(as: "/dev/sdg", isRemoved: false) }),
            ("seenElsewhere", { $0.seenElsewhere() }), ("detached", { $0.detached() }),
            ("detachedStuck", { $0.detachedStuck() }), ("disowned", { $0.disowned() }),
        ]
    }

    // MARK: The mount

    typealias Mount = VolumeState.Mount

    private static let mountStates: [(name: String, state: Mount)] = {
        let sound = after(.mounting, .mounted(device))
        let stale = after(sound, .outlived)
        let lost = after(sound, .deviceLost)
        return [
            ("unmounted", .unmounted), ("mounting", .mounting), ("mounted", sound),
            ("stale", stale), ("lost", lost), ("unmounting", after(sound, .unmountingBegan)),
            ("unmounting, stale", after(stale, .unmountingBegan)),
            ("unmounting, lost", after(lost, .unmountingBegan)), ("detaching", .detaching),
        ]
    }()

    private static func after(_ mount: Mount, _ event: Mount.Event) -> Mount {
        mount.after(event) ?? mount
    }

    private static let mountEvents: [(name: String, event: Mount.Event)] = [
        ("mountingBegan", .mountingBegan), ("mounted", .mounted(device)),
        ("mountingFailed", .mountingFailed), ("mountStays", .mountStays(device)),
        ("foundMounted", .foundMounted(device)), ("outlived", .outlived),
        ("deviceLost", .deviceLost), ("unmountingBegan", .unmountingBegan),
        ("unmountingFailed", .unmountingFailed), ("unmounted", .unmounted),
        ("releaseBegan", .releaseBegan), ("releaseEnded", .releaseEnded),
    ]

    private static func text(_ mount: Mount?) -> String {
        func condition(_ mounted: VolumeState.Mounted) -> String? {
            mounted.condition == .sound ? nil : "\(mounted.condition)"
        }
        return switch mount {
        case nil: "-"
        case .unmounted: "unmounted"
        case .mounting: "mounting"
        case .mounted(let mounted): condition(mounted) ?? "mounted"
        case .unmounting(let mounted):
            condition(mounted).map { "unmounting, \($0)" } ?? "unmounting"
        case .detaching: "detaching"
        }
    }

    // MARK: The tables

    /// A table as Markdown: a line an event, a column a state. A cell is empty where nothing
    /// changes.
    private static func table(
        _ states: [String], _ events: [String], cell: (_ state: Int, _ event: Int) -> String
    ) -> String {
        func line(_ cells: [String]) -> String { "| \(cells.joined(separator: " | ")) |" }
        let rows = events.indices.map { event in
            line(
                ["`\(events[event])`"]
                    + states.indices.map { state in
                        let text = cell(state, event)
                        return text == states[state] ? "" : text
                    })
        }
        let head = [
            line(["event"] + states),
            line(["event"].map { _ in "---" } + states.map { _ in "---" }),
        ]
        return (head + rows).joined(separator: "\n")
    }

    private static let documented: String = {
        let path = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../docs/volume-states.md")
        return (try? String(contentsOf: path, encoding: .utf8)) ?? ""
    }()

    @Test func `an event of the attachment leads from each state to the documented one`() {
        let table = Self.table(
            Self.attachmentStates.map(\.name), Self.attachmentEvents.map(\.name)
        ) { state, event in
            Self.text(
                Self.made(
                    Self.attachmentStates[state].state, Self.attachmentEvents[event].apply
                ).attachment)
        }
        #expect(Self.documented.contains(table), "\(table)")
    }

    @Test func `an event of the lease leads from each state to the documented one`() {
        let table = Self.table(
            Self.leaseStates.map(\.name), Self.leaseEvents.map(\.name)
        ) { state, event in
            "\(Self.made(Self.leaseStates[state].state, Self.leaseEvents[event].apply).lease)"
        }
        #expect(Self.documented.contains(table), "\(table)")
    }

    @Test func `an event of the mount leads from each state to the documented one`() {
        let table = Self.table(
            Self.mountStates.map(\.name), Self.mountEvents.map(\.name)
        ) { state, event in
            Self.text(Self.mountStates[state].state.after(Self.mountEvents[event].event))
        }
        #expect(Self.documented.contains(table), "\(table)")
    }

    // MARK: What holds in all of them

    @Test func `what is mounted is here, and a certain lease is one of what is here`() {
        let events = Self.attachmentEvents + Self.leaseEvents
        for (_, attachment) in Self.attachmentStates {
            for isMounted in [false, true] {
                let before = Self.made(attachment) {
                    if isMounted { $0.foundMounted(on: Self.device, mayBeOutdated: false) }
                    $0.leaseSeen()
                }
                #expect(before.lease == (before.isHere ? .certain : .uncertain))
                for (name, apply) in events {
                    let after = Self.made(before, apply)
                    #expect(after.fault == nil, "\(name)")
                    #expect(!isMounted || after.isHere, "\(name)")
                    #expect(after.isHere || after.lease != .certain, "\(name)")
                }
            }
        }
    }

    @Test func `of an attachment that has ended nothing is left`() {
        for (_, state) in Self.attachmentStates {
            var state = state
            state.described(
                VolumeDescription(
                    id: Self.id, state: .inUse, availabilityZone: "a", size: 1,
                    attachments: [Self.accepted]))
            state.attachUnanswered(as: "/dev/sdf", at: Self.start)
            state.seenHere()
            state.foreignAttachmentSeen(at: Self.start)
            #expect(state.isSeenHere && state.unansweredName == "/dev/sdf")
            state.detached()
            #expect(!state.isHere && !state.isOurs && state.deviceName == nil)
            #expect(state.attachedAt == nil && !state.isSeenHere && state.askedNames.isEmpty)
            #expect(state.unansweredName == nil && state.nameToAskAgain == nil)
            #expect(!state.isSurelyForeign(at: Self.start + Limit.mountTimeMax))
            #expect(state.description?.attachments == [])
            #expect(state.description?.state == .available)
        }
    }

    @Test func `a look may be older than an attachment that EC2 accepted a moment before`() {
        var state = Self.fresh()
        #expect(!state.isAttachedLately(at: Self.start))
        state.attachBegan(as: "/dev/sdg")
        state.attachAccepted(Self.accepted, as: "/dev/sdg", at: Self.start)
        #expect(
            state.isAttachedLately(at: Self.start + (Limit.attachmentLagMax - .milliseconds(1))))
        #expect(!state.isAttachedLately(at: Self.start + Limit.attachmentLagMax))
        #expect(state.isSurelyAttached(at: Self.start))
        state.attachUnanswered(as: "/dev/sdg", at: Self.start)
        #expect(state.isAttachedLately(at: Self.start) && !state.isSurelyAttached(at: Self.start))
    }

    @Test func `a name that was asked for without an answer is kept until the attachment is seen`()
    {
        var state = Self.fresh()
        state.attachBegan(as: "/dev/sdg")
        state.attachUnanswered(as: "/dev/sdg", at: Self.start)
        #expect(state.nameToAskAgain == "/dev/sdg" && state.unansweredName == "/dev/sdg")
        state.attached(as: "/dev/sdg")
        #expect(state.unansweredName == nil)
    }

    @Test func `an attachment is the plugin's by its mark, a name it asked for, or its record`() {
        var seen = VolumeDescription(
            id: Self.id, state: .inUse, availabilityZone: "a", size: 1,
            attachments: [Self.accepted])
        func isPlugins(_ state: VolumeState, _ name: String = "/dev/sdg") -> Bool {
            state.isPlugins(attachedAs: name, seen, on: Self.instance)
        }
        #expect(!isPlugins(Self.fresh()))
        #expect(isPlugins(Self.made { $0.attachBegan(as: "/dev/sdg") }))
        #expect(!isPlugins(Self.made { $0.attachBegan(as: "/dev/sdf") }))
        var record = VolumeRecord(id: Self.id, createdAt: 0, deviceName: "/dev/sdg")
        #expect(!isPlugins(VolumeState(of: record)))
        record.isOurs = true
        #expect(isPlugins(VolumeState(of: record)))
        // The earlier run may have attached it by that name.
        var again = VolumeState(of: record)
        again.takenUp(isPresent: false)
        again.attachBegan(as: "/dev/sdg")
        again.attachRefused(as: "/dev/sdg", wasOurs: true)
        #expect(isPlugins(again))
        #expect(!isPlugins(VolumeState(of: record), "/dev/sdf"))
        seen.tags = [
            AttachmentMark.tag: AttachmentMark.value(of: Self.id, on: Self.instance, as: "/dev/sdg")
        ]
        #expect(isPlugins(Self.fresh()))
        let stale = Self.made { $0.markEnded(as: "/dev/sdg", isRemoved: false) }
        #expect(!isPlugins(stale))
        for isOurs in [false, true] {
            var written = stale
            written.originTold(isOurs: isOurs)
            // Without an attachment of this plugin's, only the lease was written.
            written.markWritten()
            #expect(written.staleMarkName == (isOurs ? nil : "/dev/sdg"))
        }
        var removed = stale
        removed.staleMarkRemoved()
        #expect(removed.staleMarkName == nil && !isPlugins(removed))
        #expect(isPlugins(Self.made { $0.markEnded(as: "/dev/sdf", isRemoved: true) }))
        #expect(Self.made { $0.staleMarkRemoved() } == Self.fresh())
    }

    @Test func `two looks that are apart tell what one alone does not`() {
        let later = Self.start + Limit.tagLagMax
        let soon = later + (.zero - .milliseconds(1))
        var state = Self.fresh()
        #expect(!state.isSurelyForeign(at: later) && !state.isSurelyUnlisted(at: later))
        state.foreignAttachmentSeen(at: Self.start)
        state.foreignAttachmentSeen(at: later)
        state.unlisted(at: Self.start)
        state.unlisted(at: later)
        #expect(!state.isSurelyForeign(at: soon) && !state.isSurelyUnlisted(at: soon))
        #expect(state.isSurelyForeign(at: later) && state.isSurelyUnlisted(at: later))
        state.ownAttachmentSeen()
        state.listed()
        #expect(!state.isSurelyForeign(at: later) && !state.isSurelyUnlisted(at: later))
    }

    @Test func `what is to be saved of it stands in the record`() {
        var record = VolumeRecord(id: Self.id, createdAt: 0)
        var state = VolumeState(of: record)
        #expect(record.isUpToDate(with: state))
        state.attachBegan(as: "/dev/sdg")
        state.leaseWritingBegan()
        #expect(!record.isUpToDate(with: state))
        record.note(state)
        #expect(record.isUpToDate(with: state))
        var foreign = state
        foreign.originTold(isOurs: false)
        #expect(!record.isUpToDate(with: foreign))
        #expect(record.deviceName == "/dev/sdg" && record.isOurs && record.hasLease)
        #expect(VolumeState(of: record).attachment == .recorded(as: "/dev/sdg"))
        #expect(VolumeState(of: record).lease == .uncertain)
    }

    @Test func `an attachment has ended if two looks do not list it and its device has gone`() {
        let later = Self.start + Limit.tagLagMax
        let here = Self.made {
            $0.attached(as: "/dev/sdf")
            $0.unlisted(at: Self.start)
        }
        func listing(
            _ state: VolumeState, isListed: Bool = false, isGone: Bool = true,
            askedAt: Instant = later
        ) -> VolumeState.Listing {
            state.listing(isListed: isListed, isGone: isGone, askedAt: askedAt)
        }
        #expect(listing(here) == .ended)
        #expect(listing(here, isListed: true) == .current)
        #expect(listing(here, isGone: false) == .doubtful)
        #expect(listing(here, askedAt: Self.start) == .doubtful)
        #expect(listing(Self.made(here) { $0.listed() }) == .doubtful)
        // EC2's answer may be older than what this run does.
        let accepted = Self.made(here) {
            $0.attachAccepted(Self.accepted, as: "/dev/sdf", at: Self.start)
        }
        #expect(listing(accepted) == .current)
        #expect(listing(Self.made(here) { $0.mountingBegan() }) == .current)
    }
}
