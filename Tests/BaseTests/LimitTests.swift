import Base
import Testing

/// Bounds that hold only together. Each test says what breaks where one is changed alone.
@Suite struct LimitTests {
    /// How long Docker waits for a managed plugin's answer to a Mount, at most: `docker plugin
    /// enable --timeout` of the README.
    private static let dockerMountTimeMax: Duration = .seconds(120)
    /// How long Docker waits where no other time was given.
    private static let dockerAnswerTimeDefault: Duration = .seconds(30)
    /// From Docker's SIGTERM to its SIGKILL.
    private static let dockerStopTimeMax: Duration = .seconds(10)

    @Test func `a call is answered before Docker gives up`() {
        #expect(Limit.mountTimeMax < Self.dockerMountTimeMax)
        #expect(Limit.unmountTimeMax < Self.dockerMountTimeMax)
        #expect(Limit.createTimeMax < Self.dockerMountTimeMax)
        #expect(Limit.hangingAnswerTimeMax < Self.dockerAnswerTimeDefault)
    }

    @Test func `the work of a call ends before its answer is due`() {
        #expect(Limit.answerTimeMax < Limit.hangingAnswerTimeMax)
        #expect(Limit.formatTimeMax < Limit.mountTimeMax - Limit.answerTimeMax)
        #expect(Limit.partitionTimeMax < Limit.mountTimeMax)
    }

    @Test func `a second device name has time after the first was given up`() {
        #expect(Limit.attachingTimeMax * 2 < Limit.mountTimeMax)
        #expect(Limit.attachmentCheckInterval * 2 < Limit.attachingTimeMax)
    }

    @Test func `the process ends by itself before Docker kills it`() {
        #expect(Limit.stopTimeMax + Limit.logFinishTimeMax < Self.dockerStopTimeMax)
    }

    @Test func `a task that moves at once waits for the lease rather than failing`() {
        #expect(Limit.leaseWaitMax > Limit.leaseDropDelay)
    }

    @Test func `an owner sees each detachment that was sent without a look at its lease`() {
        #expect(Limit.leaseSettleTime > Limit.takeoverLookAgeMax)
    }

    @Test func `a lease that looks do not show in time is written again while the Mount has time`()
    {
        let each = Limit.leaseFactsAgeMax + Limit.leaseSettleTime + Limit.tagLagMax
        #expect(each * Limit.leaseTriesMax < Limit.unmountTimeMax)
        #expect(Limit.leaseFactsAgeMax > Limit.takeoverLookAgeMax)
    }

    @Test func `a lease is looked at after looks have caught up with it`() {
        #expect(Limit.leaseCheckDelay > Limit.tagLagMax)
        #expect(Limit.leaseCheckDelay > Limit.attachmentLagMax)
        #expect(Limit.leaseCheckInterval >= Limit.leaseCheckDelay)
    }

    @Test func `an attachment that is new is not taken for one that has ended`() {
        #expect(Limit.attachmentLagMax > Limit.tagLagMax)
        // An adoption's last look is newer than whatever the run before did last.
        #expect(Limit.adoptionPauses.allSatisfy { $0 >= Limit.attachmentLagMax })
    }

    @Test func `a proof that nothing holds a device outlives one retry, and no mount`() {
        #expect(Limit.unheldProofAgeMax > Limit.retryDelayMin)
        #expect(Limit.unheldProofAgeMax < Limit.connectTimeMax + Limit.handshakeTimeMax)
    }

    @Test func `one attempt at EC2 leaves time for another`() {
        let attempt = Limit.connectTimeMax + Limit.handshakeTimeMax + Limit.responseHeadTimeMax
        #expect(attempt * 2 < Limit.unmountTimeMax)
        #expect(Limit.responseHeadTimeMax <= Limit.responseTimeMax)
        #expect(Limit.retryDelayMin < Limit.throttledDelayMin)
        #expect(Limit.throttledDelayMin < Limit.retryDelayMax)
        #expect(Limit.nameServerTimeMax * Limit.nameServerTriesMax < Limit.connectTimeMax)
    }

    @Test func `credentials are replaced while they serve`() {
        #expect(Limit.credentialsRefreshAhead > .seconds(300))
        #expect(Limit.credentialsRefreshAhead > Limit.credentialsRefreshInterval * 2)
        #expect(Limit.credentialsTimeMax < Limit.credentialsRefreshInterval)
        #expect(Limit.imdsTimeMax * Limit.attemptsMax < Limit.credentialsTimeMax)
    }

    @Test func `a clock that AWS would refuse is noticed`() {
        #expect(Limit.clockSkewMax < .seconds(300))
    }

    @Test func `a worker that hangs is replaced before its callers are told so`() {
        #expect(Limit.blockingPatience < Limit.hangTimeMin)
        #expect(Limit.blockingThreadLinger < Limit.blockingPatience)
        #expect(Limit.blockingThreadsPerVolumeMax < Limit.blockingThreadsMax)
        #expect(Limit.blockingThreadsHangingMax >= Limit.blockingThreadsPerVolumeMax * 128)
    }

    @Test func `what fits a request fits what it is kept in`() {
        #expect(Limit.volumeOptionsMax + Limit.volumeNameMax < Limit.requestBodyMax)
        #expect(Limit.mountIDMax < Limit.requestBodyMax)
        #expect(Limit.namesPerVolumeMax < Limit.volumeNamesMax)
        // All names with the longest options, and a third more for what JSON writes around them.
        let largest = Limit.volumeNamesMax * (Limit.volumeOptionsMax + Limit.volumeNameMax)
        #expect(largest < Limit.stateFileMax)
        #expect(Limit.stateRewriteMax < Limit.stateFileMax)
    }

    @Test func `what is read of a device for proofs lies within what is fetched for it`() {
        #expect(Limit.probeEdge <= Limit.blankProofEdge)
    }

    @Test func `pauses grow from their least to their most`() {
        #expect(Limit.lookIntervalMin < Limit.lookIntervalMax)
        #expect(Limit.startRetryMin < Limit.startRetryMax)
        #expect(Limit.saveRetryMin < Limit.saveRetryMax)
        #expect(Limit.ringEntriesMin < Limit.ringEntries)
    }
}
