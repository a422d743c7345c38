/// Every bound of the daemon, in one place. Sizes are in bytes unless the name says otherwise.
package enum Limit {
    // The plugin socket.
    package static let connectionsMax = 512
    package static let requestHeadMax = 16 * 1024
    package static let requestHeadersMax = 64
    package static let requestBodyMax = 64 * 1024
    /// From a request's first byte to its last.
    package static let requestReceiveTimeMax: Duration = .seconds(10)
    /// How long an answer may wait for a client that does not read it.
    package static let responseSendTimeMax: Duration = .seconds(10)
    /// How long the rest of a refused request is read and dropped.
    package static let lingerTimeMax: Duration = .seconds(5)
    package static let jsonDepthMax = 16

    // HTTP messages, as server and as client.
    /// Of one chunked body, all its chunks together.
    package static let chunkExtensionsMax = 4 * 1024
    package static let trailersMax = 8 * 1024

    // The ring.
    package static let ringEntries: UInt32 = 256
    /// Where RLIMIT_MEMLOCK leaves no room for `ringEntries`.
    package static let ringEntriesMin: UInt32 = 16
    package static let operationsInFlightMax = 16 * 1024
    package static let jobsPerTurnMax = 256
    /// How many completions or events are taken from the kernel at a time.
    package static let completionsPerDrain = 256
    /// How many worker threads are busy at a time, those that hang and those for the state not
    /// counted.
    package static let blockingThreadsMax = 16
    /// One for a call that hangs, one for what is asked about it meanwhile.
    package static let blockingThreadsPerVolumeMax = 2
    /// One for each state file.
    package static let blockingThreadsOfStateMax = 2
    /// How many worker threads may hang before they count as busy: two for each volume that EC2
    /// attaches to an instance, of whatever type (128).
    package static let blockingThreadsHangingMax = 256
    /// How long a call may keep a worker that others wait for before it is taken to hang. To be wrong
    /// about it costs a thread.
    package static let blockingPatience: Duration = .seconds(2)
    /// How long a call takes before an operator is told that it hangs: longer than most journals
    /// are replayed.
    package static let hangTimeMin: Duration = .seconds(30)
    /// How long a worker thread without work waits for more: within a mount there is more, and to
    /// start a thread costs as much as most of the work.
    package static let blockingThreadLinger: Duration = .milliseconds(200)
    /// The room that a buffer makes for one receive, as long as it is below its maximum.
    package static let receiveMin = 512
    /// How long a listener waits when descriptors or memory are short.
    package static let acceptRetryDelay: Duration = .milliseconds(100)
    /// What is kept of a child process's standard error.
    package static let childOutputMax = 8 * 1024
    /// How long a child that was killed is waited for. Only one that waits for a device takes longer.
    package static let killTimeMax: Duration = .seconds(2)
    /// How long a worker waits for children that are being started.
    package static let childStartTimeMax: Duration = .seconds(2)

    /// How many bytes of responses wait for each other, to go out together.
    package static let heldResponsesMax = 64 * 1024

    // HTTP client: IMDS and EC2.
    /// Names and TCP together.
    package static let connectTimeMax: Duration = .seconds(3)
    /// A proxy's tunnel and TLS together.
    package static let handshakeTimeMax: Duration = .seconds(5)
    /// How long one name server is waited for, how often all are asked, and how many of a name's
    /// addresses are tried.
    package static let nameServerTimeMax: Duration = .seconds(1)
    package static let nameServerTriesMax = 2
    package static let addressesMax = 8
    /// A connection that has been idle for longer is not used again: what is on the way may have
    /// forgotten it without a word (a NAT gateway does after 350 s).
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
    /// What is kept of an error message of EC2's; an encoded authorization failure has about 1,500
    /// characters.
    package static let ec2MessageMax = 4096

    // EC2 and IMDS calls.
    package static let attemptsMax = 3
    package static let retryDelayMin: Duration = .milliseconds(50)
    package static let retryDelayMax: Duration = .seconds(5)
    /// The first back-off after throttling: a budget of changes refills at 5 requests a second.
    package static let throttledDelayMin: Duration = .milliseconds(250)
    /// However often EC2 throttles an action, so many calls of it go out a second.
    package static let requestRateMin = 0.5
    /// Which part of an action's full rate one answer restores.
    package static let requestRateStep = 0.02
    /// How many volumes are looked up by one call; a filter takes 200 values.
    package static let volumesPerLookupMax = 200
    /// How many of them a log line or an error names.
    package static let volumesNamedMax = 8
    /// How many packages /health lists as those of which the plugin was made.
    package static let packagesMax = 100
    /// How long a lookup waits for the one before it to end; then it goes out beside that.
    package static let lookupWaitMax: Duration = .seconds(1)
    /// How far this machine's clock may be off before a refused signature is laid to it; AWS bears
    /// 5 minutes.
    package static let clockSkewMax: Duration = .seconds(240)
    /// How long before they expire credentials are fetched anew; new ones are there 5 minutes before.
    package static let credentialsRefreshAhead: Duration = .seconds(600)
    /// Between two attempts to replace credentials that still serve.
    package static let credentialsRefreshInterval: Duration = .seconds(30)
    /// The whole of one fetch of credentials, retries included.
    package static let credentialsTimeMax: Duration = .seconds(10)
    package static let imdsTimeMax: Duration = .seconds(2)

    // The daemon's start and end.
    package static let startRetryMin: Duration = .seconds(1)
    package static let startRetryMax: Duration = .seconds(30)
    /// How long calls that are under way may go on after SIGTERM. Docker sends SIGKILL 10 s after it,
    /// and the state is to be saved before that, also to a slow disk.
    package static let stopTimeMax: Duration = .seconds(5)

    // The log.
    /// How many bytes of lines wait at one place for being read; what comes then is dropped.
    package static let logQueueMax = 256 * 1024
    /// How long the end of the process waits for lines to be taken.
    package static let logFinishTimeMax: Duration = .seconds(1)

    /// How often the limit of attachments is asked for; without it EC2 alone refuses.
    package static let attachmentLimitTriesMax = 10

    // Volumes.
    /// Names of volumes that are remembered, those of one volume each counted.
    package static let volumeNamesMax = 100_000
    package static let namesPerVolumeMax = 64
    package static let volumeNameMax = 255
    /// All of one name's options together, names and values.
    package static let volumeOptionsMax = 2 * 1024
    package static let mountIDsMax = 4096
    package static let mountIDMax = 256
    /// The whole of one Mount; Docker's own bound is 2 minutes.
    package static let mountTimeMax: Duration = .seconds(110)
    package static let unmountTimeMax: Duration = .seconds(50)
    /// Beyond what all names with the longest options take.
    package static let stateFileMax = 256 * 1024 * 1024
    /// A state of up to this size is written as a whole each time; of a larger one, what has changed.
    package static let stateRewriteMax = 64 * 1024
    /// Between two attempts to save what could not be saved.
    package static let saveRetryMin: Duration = .seconds(1)
    package static let saveRetryMax: Duration = .seconds(30)
    /// What the holder of the state folder says of itself.
    package static let lockHolderMax = 1024
    /// Docker's record of a plugin, which has all its settings.
    package static let pluginRecordMax = 1024 * 1024
    /// What the plugin's packaging says of the build.
    package static let buildFileMax = 16 * 1024
    /// A name with its registry (255) and a tag (128), as Docker bounds them.
    package static let driverNameMax = 384
    package static let createTimeMax: Duration = .seconds(50)
    package static let formatTimeMax: Duration = .seconds(90)
    /// How long before a call's time is over its work is to have ended, to be its answer.
    package static let answerTimeMax: Duration = .seconds(1)
    /// How long a call waits for what has outlasted a whole call already: less than the 30 s that a
    /// managed plugin has to answer where 'docker plugin enable' was given no other time.
    package static let hangingAnswerTimeMax: Duration = .seconds(20)
    /// How many calls about one volume may have been answered before their work has ended; others
    /// are then answered at once.
    package static let overdueCallsMax = 32
    /// A check of a damaged file system, which goes on across Mounts; it reads all that says where
    /// data is, of a full 16 TiB within hours.
    package static let checkTimeMax: Duration = .seconds(24 * 3600)

    // Devices and file systems.
    /// How long a partition is waited for once its disk is there.
    package static let partitionTimeMax: Duration = .seconds(5)
    /// How much is read at each end of a device to prove that it is blank.
    package static let blankProofEdge = 1024 * 1024
    /// How many blocks between them have to be zeros too.
    package static let blankProofSamples = 64
    /// How much is fetched ahead at each end of a device that is probed: a ZFS's labels are the
    /// largest of what is looked for.
    package static let probeEdge = 512 * 1024
    package static let signaturesNamedMax = 8
    package static let mountInfoMax = 16 * 1024 * 1024
    package static let holdersNamedMax = 8
    /// How many links in /proc are followed to find who holds a mount.
    package static let holderNodesMax = 200_000

    /// After which pauses the attachments here are looked at again, where EC2 tells of some that this
    /// plugin may have made just before it ended.
    package static let adoptionPauses: [Duration] = [.seconds(5), .seconds(30)]

    // What EC2 tells no event of is looked at in growing pauses.
    package static let lookIntervalMin: Duration = .milliseconds(200)
    package static let lookIntervalMax: Duration = .seconds(3)
    /// While a device is awaited, how often EC2 is asked whether the attachment has failed.
    package static let attachmentCheckInterval: Duration = .seconds(5)
    /// How long a device may take to come before it is attached by another name.
    package static let attachingTimeMax: Duration = .seconds(45)
    /// How long a volume bears its lease after its last Unmount: `docker create` mounts and
    /// unmounts just before the start.
    package static let leaseDropDelay: Duration = .seconds(2)
    /// How long another instance's lease is waited for: longer than `leaseDropDelay`, so that a
    /// task can move from host to host at once.
    package static let leaseWaitMax: Duration = .seconds(6)
    /// How long EC2 may count a volume whose device has gone against the instance's limit.
    package static let roomTimeMax: Duration = .seconds(10)
    /// How long the detachment from an instance that is down may take before it is forced.
    package static let gentleDetachTimeMax: Duration = .seconds(10)

    // How old the facts behind a call to EC2 may be when it is sent.
    /// From the DescribeVolumes that justifies a DetachVolume from another instance to that call.
    /// Shorter than `leaseSettleTime`: an owner that looks so long after its lease was written sees
    /// every detachment that was sent by whoever did not see the lease.
    package static let takeoverLookAgeMax: Duration = .milliseconds(200)
    /// From the moment a lease was written to the owner's last look before a Mount is answered.
    package static let leaseSettleTime: Duration = .milliseconds(300)
    /// From a look at another instance to what is done because it is down.
    package static let ownerLookAgeMax: Duration = .seconds(3)
    /// From the moment an attachment here was seen to the writing of its lease.
    package static let leaseFactsAgeMax: Duration = .seconds(1)
    /// From the proof that nothing holds a device to its detachment, or its lease's end.
    package static let unheldProofAgeMax: Duration = .seconds(3)

    /// How long what DescribeVolumes tells may lag behind, as a rule.
    package static let tagLagMax: Duration = .seconds(2)
    /// How long after its AttachVolume a look may show a volume as not attached.
    package static let attachmentLagMax: Duration = .seconds(5)
    /// How long an attachment waits for its record to be on the disk before EC2 is asked for it.
    package static let attachmentSaveTimeMax: Duration = .seconds(1)
    /// How often a lease is written that looks do not show, before it is left to the next check.
    package static let leaseTriesMax = 3
    /// When the lease of a mounted volume is looked at first, and how often after that. A fleet of a
    /// thousand instances so makes three calls a second, of the twenty that an account has.
    package static let leaseCheckDelay: Duration = .seconds(10)
    package static let leaseCheckInterval: Duration = .seconds(300)
    /// How many tags a resource may bear, besides AWS's own.
    package static let tagsPerVolumeMax = 50
    /// How long a mount that nobody uses, such as that of a cut call, waits for the retry.
    package static let unusedMountTimeMax: Duration = .seconds(60)
    package static let detachRetryInterval: Duration = .seconds(30)
    // The EC2 simulator.
    /// How many events of its log are kept.
    package static let simulatorEventsMax = 20_000
}
