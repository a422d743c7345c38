/// Every bound of the daemon, in one place. Sizes are in bytes unless the name says otherwise.
package enum Limit {
    // The plugin socket.
    package static let connectionsMax = 512
    package static let requestHeadMax = 16 * 1024
    package static let requestHeadersMax = 64
    package static let requestBodyMax = 64 * 1024
    /// From a request's first byte to its last.
    package static let requestReceiveTimeMax: Duration = .seconds(10)
    /// How long sending a response may take if the client does not read it.
    package static let responseSendTimeMax: Duration = .seconds(10)
    /// How long the daemon reads and drops the rest of a rejected request.
    package static let lingerTimeMax: Duration = .seconds(5)
    package static let jsonDepthMax = 16

    // HTTP messages, as server and as client.
    /// The chunk extensions of one body, all chunks together.
    package static let chunkExtensionsMax = 4 * 1024
    package static let trailersMax = 8 * 1024

    // The ring.
    package static let ringEntries: UInt32 = 256
    /// Used if RLIMIT_MEMLOCK leaves no room for `ringEntries`.
    package static let ringEntriesMin: UInt32 = 16
    package static let operationsInFlightMax = 16 * 1024
    package static let jobsPerTurnMax = 256
    /// How many completions or events are read from the kernel at a time.
    package static let completionsPerDrain = 256
    /// How many worker threads may be busy at a time, without those that hang and those for the
    /// state.
    package static let blockingThreadsMax = 16
    /// One for a call that hangs, and one for queries about the volume in the meantime.
    package static let blockingThreadsPerVolumeMax = 2
    /// One for each state file.
    package static let blockingThreadsOfStateMax = 2
    /// How many worker threads may hang before they count as busy: two for each volume that EC2
    /// attaches to an instance, of whatever type (128).
    package static let blockingThreadsHangingMax = 256
    /// How long a call may occupy a worker that others wait for before it is considered to hang. A
    /// wrong guess costs one thread.
    package static let blockingPatience: Duration = .seconds(2)
    /// How long a call takes before it is reported as hanging: longer than the replay of most
    /// journals.
    package static let hangTimeMin: Duration = .seconds(30)
    /// How long an idle worker thread waits for more work: a mount consists of several calls, and
    /// starting a thread takes as long as most of them.
    package static let blockingThreadLinger: Duration = .milliseconds(200)
    /// The least time between two reports that the kernel lacks memory for the ring's operations.
    package static let shortageReportInterval: Duration = .seconds(60)
    /// The space that a buffer reserves for one receive while it is below its maximum.
    package static let receiveMin = 512
    /// How long a listener pauses when descriptors or memory are short.
    package static let acceptRetryDelay: Duration = .milliseconds(100)
    /// How much of a child process's standard error is kept.
    package static let childOutputMax = 8 * 1024
    /// How long to wait for a killed child. Only a child that waits for a device takes longer.
    package static let killTimeMax: Duration = .seconds(2)
    /// How long a worker waits for children that are being started.
    package static let childStartTimeMax: Duration = .seconds(2)

    /// How many bytes of responses to pipelined requests are made before they are sent; the last of
    /// them may exceed it.
    package static let unsentResponsesMax = 64 * 1024

    // TLS.
    /// How much ciphertext is received, and how much is sent, at a time.
    package static let ciphertextReceiveMax = 4 * 1024
    package static let ciphertextSendMax = 32 * 1024
    /// What one record carries: RFC 8446, section 5.1.
    package static let tlsRecordMax = 16 * 1024

    // HTTP client: IMDS and EC2.
    /// Name resolution and TCP together.
    package static let connectTimeMax: Duration = .seconds(3)
    /// A proxy's tunnel and TLS together.
    package static let handshakeTimeMax: Duration = .seconds(5)
    /// The timeout per name server, how often all of them are queried, and how many addresses of a
    /// name are tried.
    package static let nameServerTimeMax: Duration = .seconds(1)
    package static let nameServerTriesMax = 2
    package static let addressesMax = 8
    /// A connection that has been idle for longer is not reused: a middlebox may have dropped it
    /// silently (a NAT gateway does so after 350 s).
    package static let connectionIdleTimeMax: Duration = .seconds(300)
    package static let responseHeadTimeMax: Duration = .seconds(15)
    package static let responseTimeMax: Duration = .seconds(30)
    package static let responseHeadMax = 32 * 1024
    package static let responseHeadersMax = 128
    /// 1xx responses before the final one.
    package static let interimResponsesMax = 8
    package static let ec2ResponseBodyMax = 8 * 1024 * 1024
    package static let proxyResponseBodyMax = 64 * 1024
    package static let imdsResponseBodyMax = 64 * 1024
    package static let connectionsPerHostMax = 16
    package static let xmlDepthMax = 32
    package static let xmlTextMax = 64 * 1024
    package static let xmlElementsMax = 64 * 1024
    /// How much of an EC2 error message is kept; an encoded authorization failure has about 1,500
    /// characters.
    package static let ec2MessageMax = 4096

    // EC2 and IMDS calls.
    package static let attemptsMax = 3
    package static let retryDelayMin: Duration = .milliseconds(50)
    package static let retryDelayMax: Duration = .seconds(5)
    /// The first back-off after throttling: the budget of mutating calls refills at 5 requests per
    /// second.
    package static let throttledDelayMin: Duration = .milliseconds(250)
    /// The minimum rate of an action, in calls per second, however often EC2 throttles it.
    package static let requestRateMin = 0.5
    /// The fraction of an action's full rate that one successful response restores.
    package static let requestRateStep = 0.02
    /// How many volumes one call looks up; a filter takes 200 values.
    package static let volumesPerLookupMax = 200
    /// How many volumes a log line or an error names.
    package static let volumesNamedMax = 8
    /// How many packages that the plugin was built from /health lists.
    package static let packagesMax = 100
    /// How long a lookup waits until the one before it ends; then it is sent in parallel.
    package static let lookupWaitMax: Duration = .seconds(1)
    /// How far this machine's clock must be off to be blamed for a rejected signature; AWS
    /// tolerates 5 minutes.
    package static let clockSkewMax: Duration = .seconds(240)
    /// How long before their expiry credentials are refreshed; AWS provides new ones 5 minutes
    /// before.
    package static let credentialsRefreshAhead: Duration = .seconds(600)
    /// Between two attempts to replace credentials that are still valid.
    package static let credentialsRefreshInterval: Duration = .seconds(30)
    /// One fetch of credentials, including retries.
    package static let credentialsTimeMax: Duration = .seconds(10)
    package static let imdsTimeMax: Duration = .seconds(2)

    // The daemon's start and end.
    package static let startRetryMin: Duration = .seconds(1)
    package static let startRetryMax: Duration = .seconds(30)
    /// How long calls in progress may continue after SIGTERM. Docker sends SIGKILL 10 s later, and
    /// before that the state must be saved, even to a slow disk.
    package static let stopTimeMax: Duration = .seconds(5)

    // The log.
    /// How many bytes of lines may be queued per destination; further lines are dropped.
    package static let logQueueMax = 256 * 1024
    /// How long the exiting process waits until its lines have been read.
    package static let logFinishTimeMax: Duration = .seconds(1)

    /// How often the daemon tries to read the attachment limit; without it, only EC2 enforces the
    /// limit.
    package static let attachmentLimitTriesMax = 10

    // Volumes.
    /// How many volume names are remembered; each name of a volume counts.
    package static let volumeNamesMax = 100_000
    package static let namesPerVolumeMax = 64
    package static let volumeNameMax = 255
    /// The options of one name together: names and values.
    package static let volumeOptionsMax = 2 * 1024
    package static let mountIDsMax = 4096
    /// How often one mount ID may have a volume mounted; Docker needs no more than two.
    package static let mountsPerIDMax = 1_000_000
    package static let mountIDMax = 256
    /// One Mount from call to response; Docker's own limit is 2 minutes.
    package static let mountTimeMax: Duration = .seconds(110)
    package static let unmountTimeMax: Duration = .seconds(50)
    /// More than all names with the longest options need.
    package static let stateFileMax = 256 * 1024 * 1024
    /// Up to this size, each save rewrites the whole state; of a larger state, it appends what has
    /// changed.
    package static let stateRewriteMax = 64 * 1024
    /// Between two attempts to save state after a failure.
    package static let saveRetryMin: Duration = .seconds(1)
    package static let saveRetryMax: Duration = .seconds(30)
    /// The text by which the holder of the state folder identifies itself.
    package static let lockHolderMax = 1024
    /// Docker's record of a plugin, which contains all its settings.
    package static let pluginRecordMax = 1024 * 1024
    /// The file in which the plugin's packaging describes the build.
    package static let buildFileMax = 16 * 1024
    /// A name with its registry (255) and a tag (128); Docker has the same limits.
    package static let driverNameMax = 384
    package static let createTimeMax: Duration = .seconds(50)
    package static let formatTimeMax: Duration = .seconds(90)
    /// How long before the deadline of a call its work must end, so that its result can be the
    /// response.
    package static let answerTimeMax: Duration = .seconds(1)
    /// How long a call waits for work that has already outlasted another call: less than the 30 s
    /// that a managed plugin has for a response if 'docker plugin enable' was given no other
    /// timeout.
    package static let hangingAnswerTimeMax: Duration = .seconds(20)
    /// How many calls about one volume may be answered before their work has ended; further calls
    /// are then answered at once.
    package static let overdueCallsMax = 32
    /// A check of a damaged file system, which continues across Mounts. It reads all metadata; on a
    /// full volume of 16 TiB this takes hours.
    package static let checkTimeMax: Duration = .seconds(24 * 3600)

    // Devices and file systems.
    /// How long to wait for a partition once its disk is here.
    package static let partitionTimeMax: Duration = .seconds(5)
    /// How many bytes at each end of a device must be zero to prove that it is blank.
    package static let blankProofEdge = 1024 * 1024
    /// How many blocks between the ends must be zero too.
    package static let blankProofSamples = 64
    /// The least distance between two of them.
    package static let blankProofDistanceMin = 1024 * 1024
    /// The size of one of them, and of a block that bears a signature.
    package static let probeBlock = 4 * 1024
    /// How much of a device is read at a time.
    package static let probeReadMax = 128 * 1024
    /// How many bytes at each end of a device are prefetched for a probe: the largest structures
    /// that it looks for are ZFS labels.
    package static let probeEdge = 512 * 1024
    package static let signaturesNamedMax = 8
    package static let mountInfoMax = 16 * 1024 * 1024
    package static let holdersNamedMax = 8
    /// How many links in /proc are followed to find out who holds a mount.
    package static let holderNodesMax = 200_000

    /// The pauses before the attachments of this instance are looked at again, if EC2 reports some
    /// that the previous run of this plugin may have made.
    package static let adoptionPauses: [Duration] = [.seconds(5), .seconds(30)]

    // EC2 sends no events, so the daemon polls with increasing intervals.
    package static let lookIntervalMin: Duration = .milliseconds(200)
    package static let lookIntervalMax: Duration = .seconds(3)
    /// How often EC2 is asked whether the attachment has failed while the device is awaited.
    package static let attachmentCheckInterval: Duration = .seconds(5)
    /// How long a device may take to appear before the volume is attached under another name.
    package static let attachingTimeMax: Duration = .seconds(45)
    /// How long a volume keeps its lease after its last Unmount: `docker create` mounts and
    /// unmounts it just before the start.
    package static let leaseDropDelay: Duration = .seconds(2)
    /// How long to wait until another instance drops its lease: longer than `leaseDropDelay`, so
    /// that a task can move directly from host to host.
    package static let leaseWaitMax: Duration = .seconds(6)
    /// How long EC2 may still count a volume against the limit after its device has gone.
    package static let slotTimeMax: Duration = .seconds(10)
    /// How long the detachment from an instance that is down may take before it is forced.
    package static let gentleDetachTimeMax: Duration = .seconds(10)

    // How old the facts behind a call to EC2 may be when it is sent.
    /// From the DescribeVolumes that justifies a DetachVolume from another instance to that call.
    /// Shorter than `leaseSettleTime`, so that an owner that looks this long after writing its
    /// lease sees every detachment by a host that did not see the lease.
    package static let takeoverLookAgeMax: Duration = .milliseconds(200)
    /// From the moment a lease was written to the owner's last look before a Mount is answered.
    package static let leaseSettleTime: Duration = .milliseconds(300)
    /// From a look at another instance to an action that relies on its being down.
    package static let ownerLookAgeMax: Duration = .seconds(3)
    /// From the moment an attachment to this instance was seen to the writing of its lease.
    package static let leaseFactsAgeMax: Duration = .seconds(1)
    /// From the proof that nothing holds a device to its detachment, or to the removal of its
    /// lease.
    package static let unheldProofAgeMax: Duration = .seconds(3)

    /// How far the responses of DescribeVolumes usually lag behind, at most.
    package static let tagLagMax: Duration = .seconds(2)
    /// How long after AttachVolume a look may still show a volume as not attached.
    package static let attachmentLagMax: Duration = .seconds(5)
    /// How long AttachVolume is delayed until the record of the attachment is on disk.
    package static let attachmentSaveTimeMax: Duration = .seconds(1)
    /// How often a lease is written if looks do not show it, before the next regular check.
    package static let leaseTriesMax = 3
    /// When the lease of a mounted volume is checked first, and how often after that. A fleet of a
    /// thousand instances thus makes three calls per second, of the twenty that an account has.
    package static let leaseCheckDelay: Duration = .seconds(10)
    package static let leaseCheckInterval: Duration = .seconds(300)
    /// How many tags a resource can have, in addition to AWS's own.
    package static let tagsPerVolumeMax = 50
    /// How long a mount that nobody uses, such as that of an abandoned call, is kept for the retry.
    package static let unusedMountTimeMax: Duration = .seconds(60)
    package static let detachRetryInterval: Duration = .seconds(30)
}
