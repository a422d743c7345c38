import Base
import TestSupport
import Testing

@testable import AWSWire

private let volumeID = VolumeID("vol-0123456789abcdef0")
private let instanceID = InstanceID("i-0123456789abcdef0")

private func volumesAnswer(_ item: String) -> [UInt8] {
    Array(
        """
        <DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
          <requestId>r-1</requestId><volumeSet>\(item)</volumeSet>
        </DescribeVolumesResponse>
        """.utf8)
}

private let volumeFields = """
    <volumeId>vol-0123456789abcdef0</volumeId><size>8</size><snapshotId/>
    <availabilityZone>eu-west-1a</availabilityZone>
    """

@Suite struct EC2AnswerTests {
    @Test func `a volume is parsed with its tags and attachments`() throws {
        let body = volumesAnswer(
            """
            <item>\(volumeFields)<status>in-use</status><multiAttachEnabled>true</multiAttachEnabled>
            <volumeType>io2</volumeType><attachmentSet><item>
            <volumeId>vol-0123456789abcdef0</volumeId><instanceId>i-0123456789abcdef0</instanceId>
            <device>/dev/sdf</device><status>busy</status></item></attachmentSet>
            <tagSet><item><key>a</key><value>1</value></item><item><key>b</key><value/></item></tagSet>
            </item>
            """)
        let id = try #require(volumeID)
        let expected = VolumeDescription(
            id: id, state: .inUse, availabilityZone: "eu-west-1a", size: 8, volumeType: "io2",
            multiAttachEnabled: true,
            attachments: [
                VolumeAttachment(volume: id, instance: instanceID, device: "/dev/sdf", state: .busy)
            ], tags: ["a": "1", "b": ""])
        #expect(try EC2Answer.volumes(body) == [expected])
    }

    @Test func `a volume that does not exist is an empty list`() throws {
        #expect(try EC2Answer.volumes(volumesAnswer("")).isEmpty)
    }

    @Test func `a volume of Fargate has an attachment without an instance`() throws {
        let body = volumesAnswer(
            """
            <item>\(volumeFields)<status>in-use</status><attachmentSet><item>
            <volumeId>vol-0123456789abcdef0</volumeId><status>attached</status>
            <associatedResource>arn:aws:ecs:eu-west-1:1:task/c/t</associatedResource>
            <instanceOwningService>fargate.amazonaws.com</instanceOwningService>
            </item></attachmentSet></item>
            """)
        let attachment = try #require(try EC2Answer.volumes(body).first?.attachments.first)
        #expect(attachment.instance == nil && attachment.device == nil)
        #expect(attachment.state == .attached)
    }

    @Test func `a state that is not known reaches the operator`() throws {
        let body = volumesAnswer("<item>\(volumeFields)<status>dreaming</status></item>")
        #expect(try EC2Answer.volumes(body).first?.state == .other("dreaming"))
    }

    @Test(arguments: [
        "<item/>", "<item>\(volumeFields)</item>",
        "<item><volumeId>../x</volumeId><status>available</status></item>",
        "<item>\(volumeFields)<status>available</status><attachmentSet><item/></attachmentSet></item>",
    ])
    func `a volume without essential members is malformed`(_ item: String) {
        #expect {
            try EC2Answer.volumes(volumesAnswer(item))
        } throws: { error in
            if case .malformed? = error as? EC2Failure { true } else { false }
        }
    }

    @Test func `a page of volumes is malformed, because later volumes would seem not to exist`() {
        let body = "<DescribeVolumesResponse><volumeSet/><nextToken>t</nextToken>"
        #expect(throws: EC2Failure.self) {
            try EC2Answer.volumes(Array("\(body)</DescribeVolumesResponse>".utf8))
        }
    }

    /// An instance that seems to be gone loses its volumes.
    @Test func `a page of instances is malformed, too`() {
        let body = "<DescribeInstancesResponse><reservationSet/><nextToken>t</nextToken>"
        #expect(throws: EC2Failure.self) {
            try EC2Answer.instances(Array("\(body)</DescribeInstancesResponse>".utf8))
        }
    }

    @Test func `the network interfaces of an instance are counted`() throws {
        let body = """
            <DescribeInstancesResponse><reservationSet><item><instancesSet><item>
            <instanceId>i-00000000</instanceId><instanceState><name>running</name></instanceState>
            <networkInterfaceSet><item/><item/></networkInterfaceSet></item></instancesSet></item>
            </reservationSet></DescribeInstancesResponse>
            """
        #expect(try EC2Answer.instances(Array(body.utf8)).map(\.networkInterfaces) == [2])
    }

    /// The fields as API_Volume, API_VolumeAttachment and API_Instance name them.
    @Test func `an encrypted volume's key and deletion with its instance are parsed`() throws {
        let key = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        let body = volumesAnswer(
            """
            <item>\(volumeFields)<status>in-use</status><encrypted>true</encrypted>
            <kmsKeyId>\(key)</kmsKeyId><attachmentSet>
            <item><instanceId>i-0123456789abcdef0</instanceId><device>/dev/sdf</device>
            <status>attached</status><deleteOnTermination>true</deleteOnTermination></item>
            <item><instanceId>i-0123456789abcdef0</instanceId><device>/dev/sdg</device>
            <status>attached</status><deleteOnTermination>false</deleteOnTermination></item>
            <item><instanceId>i-0123456789abcdef0</instanceId><device>/dev/sdh</device>
            <status>attached</status></item></attachmentSet></item>
            """)
        let volume = try #require(try EC2Answer.volumes(body).first)
        #expect(volume.kmsKeyID == key)
        #expect(volume.attachments.map(\.deleteOnTermination) == [true, false, false])
        let plain = volumesAnswer("<item>\(volumeFields)<status>available</status></item>")
        #expect(try EC2Answer.volumes(plain).first?.kmsKeyID == nil)
    }

    private func instance(_ fields: String) throws -> InstanceDescription {
        let body = """
            <DescribeInstancesResponse><reservationSet><item><instancesSet><item>
            <instanceId>i-00000000</instanceId>\(fields)</item></instancesSet></item>
            </reservationSet></DescribeInstancesResponse>
            """
        return try #require(try EC2Answer.instances(Array(body.utf8)).first)
    }

    @Test func `the name of the root device is read`() throws {
        let state = "<instanceState><name>running</name></instanceState>"
        let named = try instance("\(state)<rootDeviceName>/dev/xvda</rootDeviceName>")
        #expect(named.rootDeviceName == "/dev/xvda")
        #expect(try instance(state).rootDeviceName == nil)
    }

    /// A hibernated instance's kernel, dirty pages among it, comes back with its next start.
    @Test(arguments: [
        ("stopped", "Client.UserInitiatedHibernate", "true", true),
        ("stopping", "Client.UserInitiatedHibernate", "true", true),
        ("stopped", "Client.UserInitiatedHibernate", "", true),
        // It can hibernate, but somebody stopped it or shut it down normally.
        ("stopped", "Client.UserInitiatedShutdown", "true", false),
        ("stopped", "Client.InstanceInitiatedShutdown", "true", false),
        // Nothing says how it was stopped.
        ("stopped", "", "true", true), ("stopped", "Server.ScheduledStop", "true", true),
        ("stopped", "Client.UserInitiatedShutdown", "false", false), ("stopped", "", "", false),
        ("terminated", "Client.UserInitiatedShutdown", "true", false),
        ("running", "", "true", false),
    ])
    func `it is parsed whether a stopped instance keeps its memory`(
        state: String, reason: String, canHibernate: String, expected: Bool
    ) throws {
        var fields = "<instanceState><name>\(state)</name></instanceState>"
        if !reason.isEmpty {
            fields +=
                "<stateReason><code>\(reason)</code><message>\(reason): m</message></stateReason>"
        }
        if !canHibernate.isEmpty {
            fields +=
                "<hibernationOptions><configured>\(canHibernate)</configured></hibernationOptions>"
        }
        #expect(try instance(fields).isHibernated == expected)
    }

    @Test(arguments: ["", "<html><body>Welcome</body></html>", "<DescribeVolumesResponse>"])
    func `an answer that is not EC2's is malformed`(_ body: String) {
        #expect(throws: EC2Failure.self) { try EC2Answer.volumes(Array(body.utf8)) }
    }

    @Test func `an attachment of another volume is malformed`() throws {
        let id = try #require(VolumeID("vol-00000000"))
        let body =
            "<AttachVolumeResponse>\(volumeFields)<status>attaching</status></AttachVolumeResponse>"
        #expect(throws: EC2Failure.self) {
            try EC2Answer.attachment(Array(body.utf8), of: id, action: "AttachVolume")
        }
    }

    @Test func `tags count as written unless EC2 says otherwise`() throws {
        func body(_ text: String) -> [UInt8] {
            Array("<CreateTagsResponse><return>\(text)</return></CreateTagsResponse>".utf8)
        }
        try EC2Answer.done(body("true"), action: "CreateTags")
        try EC2Answer.done(Array("<CreateTagsResponse/>".utf8), action: "CreateTags")
        #expect(throws: EC2Failure.self) { try EC2Answer.done(body("false"), action: "CreateTags") }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `mutated responses are parsed or rejected, and never crash`(_ seed: UInt64) throws {
        let samples = [
            volumesAnswer("<item>\(volumeFields)<status>in-use</status><attachmentSet/></item>"),
            Array("<Response><Errors><Error><Code>C</Code></Error></Errors></Response>".utf8),
            Array(
                """
                <DescribeInstanceTypesResponse><instanceTypeSet><item>
                <instanceType>m5.large</instanceType><ebsInfo>
                <maximumEbsAttachments>27</maximumEbsAttachments></ebsInfo><instanceStorageInfo>
                <disks><item><count>2</count></item></disks></instanceStorageInfo></item>
                </instanceTypeSet></DescribeInstanceTypesResponse>
                """.utf8),
            Array("{\"Code\":\"Success\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\"}".utf8),
            Array(
                "{\"instanceId\":\"i-00000000\",\"region\":\"r\",\"availabilityZone\":\"z\"}".utf8),
        ]
        var random = SeededGenerator(seed: seed)
        for _ in 0..<1000 {
            for sample in samples {
                let bytes = random.mutated(sample)
                _ = try? EC2Answer.volumes(bytes)
                _ = try? EC2Answer.attachmentLimit(bytes, of: "m5.large")
                _ = EC2Answer.refusal(status: 400, body: bytes, requestIDHeader: nil)
                _ = try? Credentials(document: bytes)
                _ = try? InstanceIdentity(document: bytes)
            }
        }
    }
}

@Suite struct EC2ErrorAnswerTests {
    private func refusal(_ body: String, status: Int = 400) -> EC2Failure {
        EC2Answer.refusal(status: status, body: Array(body.utf8), requestIDHeader: "h-1")
    }

    @Test(arguments: [
        """
        <Response><Errors><Error><Code>VolumeInUse</Code><Message>vol is in use</Message></Error>
        </Errors><RequestID>r-1</RequestID></Response>
        """,
        """
        <ErrorResponse><Error><Type>Sender</Type><Code>VolumeInUse</Code>
        <Message>vol is in use</Message></Error><RequestId>r-1</RequestId></ErrorResponse>
        """,
        """
        <Error><Code>VolumeInUse</Code><Message>vol is in use</Message><RequestId>r-1</RequestId></Error>
        """,
    ])
    func `every shape of an error gives its code, message and request`(_ body: String) {
        #expect(
            refusal(body)
                == .refused(code: "VolumeInUse", message: "vol is in use", requestID: "r-1"))
    }

    @Test func `a proxy's page is reported with its status and text`() {
        let failure = refusal("<html>\r\n<h1>502 Bad Gateway", status: 502)
        #expect(failure.code == "502")
        #expect("\(failure)".contains("Bad Gateway"))
        #expect("\(failure)".contains("request h-1"))
        #expect(!"\(failure)".contains("\n"))
    }

    @Test func `an empty response is reported with its status`() {
        #expect(refusal("", status: 503).code == "503")
    }

    @Test func `signed headers that AWS quotes are not kept`() {
        let failure = refusal(
            """
            <Response><Errors><Error><Code>SignatureDoesNotMatch</Code><Message>Check your key.

            The Canonical String for this request should have been 'POST
            x-amz-security-token:sessiontoken'</Message></Error></Errors></Response>
            """)
        #expect("\(failure)".contains("Check your key."))
        #expect(!"\(failure)".contains("sessiontoken"))
    }
}

@Suite struct InstanceTypeAnswerTests {
    private func limit(_ type: String, _ members: String) throws -> AttachmentLimit? {
        let body = """
            <DescribeInstanceTypesResponse><instanceTypeSet><item>
            <instanceType>\(type)</instanceType>\(members)</item></instanceTypeSet>
            </DescribeInstanceTypesResponse>
            """
        return try EC2Answer.attachmentLimit(Array(body.utf8), of: "m5d.large")
    }

    private func ebs(_ max: String, _ type: String) -> String {
        """
        <ebsInfo><maximumEbsAttachments>\(max)</maximumEbsAttachments>
        <attachmentLimitType>\(type)</attachmentLimitType></ebsInfo>
        """
    }

    @Test func `a type's limit is parsed, with the disks of its instance store`() throws {
        let disks = "<disks><item><count>1</count></item><item><count>2</count></item></disks>"
        let found = try limit(
            "m5d.large",
            "<hypervisor>nitro</hypervisor><instanceStorageInfo>\(disks)</instanceStorageInfo>"
                + ebs("24", "shared"))
        #expect(
            found
                == AttachmentLimit(
                    instanceType: "m5d.large", volumesMax: 24, isShared: true,
                    instanceStoreDisks: 3))
    }

    @Test(arguments: [
        ("nitro", "dedicated"), ("xen", "shared"), ("", "shared"), ("nitro", ""),
    ])
    func `network interfaces count on Nitro, and where the limit is shared`(
        hypervisor: String, type: String
    ) throws {
        let found = try limit(
            "m5d.large", "<hypervisor>\(hypervisor)</hypervisor>" + ebs("24", type))
        #expect(found?.isShared == false)
    }

    @Test func `a response without the type or its limit has no limit`() throws {
        #expect(try limit("m5d.large", "<ebsInfo/>") == nil)
        #expect(try limit("m5.large", ebs("27", "shared")) == nil)
    }

    @Test(arguments: ["many", "0", "-1"])
    func `a limit that is not a number is malformed`(_ max: String) {
        #expect(throws: EC2Failure.self) { try limit("m5d.large", ebs(max, "shared")) }
    }
}

@Suite struct EC2RequestTests {
    private func form(_ request: EC2Request) -> String {
        String(decoding: request.body, as: UTF8.self)
    }

    @Test func `the forms are those of the Query API`() throws {
        let volume = try #require(volumeID)
        let instance = try #require(instanceID)
        #expect(
            form(.describeVolumes([volume, VolumeID(literal: "vol-1234abcd")]))
                == "Action=DescribeVolumes&Version=2016-11-15&Filter.1.Name=volume-id"
                + "&Filter.1.Value.1=vol-0123456789abcdef0&Filter.1.Value.2=vol-1234abcd")
        #expect(
            form(.describeInstance(instance))
                == "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=instance-id"
                + "&Filter.1.Value.1=i-0123456789abcdef0")
        #expect(
            form(.describeInstanceType("m5.large"))
                == "Action=DescribeInstanceTypes&Version=2016-11-15"
                + "&Filter.1.Name=instance-type&Filter.1.Value.1=m5.large")
        #expect(
            form(.attach(volume, to: instance, as: "/dev/sdf"))
                == "Action=AttachVolume&Version=2016-11-15&VolumeId=vol-0123456789abcdef0"
                + "&InstanceId=i-0123456789abcdef0&Device=%2Fdev%2Fsdf")
        #expect(
            form(.detach(volume, from: instance, force: true))
                == "Action=DetachVolume&Version=2016-11-15&VolumeId=vol-0123456789abcdef0"
                + "&InstanceId=i-0123456789abcdef0&Force=true")
        #expect(!form(.detach(volume, from: instance, force: false)).contains("Force"))
        #expect(
            form(.setTags(["b": "", "a:b": "c d+é"], on: volume))
                == "Action=CreateTags&Version=2016-11-15&ResourceId.1=vol-0123456789abcdef0"
                + "&Tag.1.Key=a%3Ab&Tag.1.Value=c%20d%2B%C3%A9&Tag.2.Key=b&Tag.2.Value=")
        #expect(
            form(.removeTag("a", value: "v", from: volume))
                == "Action=DeleteTags&Version=2016-11-15&ResourceId.1=vol-0123456789abcdef0"
                + "&Tag.1.Key=a&Tag.1.Value=v")
    }
}
