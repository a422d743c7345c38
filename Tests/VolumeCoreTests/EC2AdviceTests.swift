import Base
import Testing
import VolumeCore

private let key = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

private func advice(
    _ code: String, _ action: EC2Action, _ message: String = "", key: String? = nil
) -> String? {
    EC2Failure.refused(code: code, message: message, requestID: "r-1")
        .advice(on: action, kmsKeyID: key)
}

/// The advice for a code, whichever action was called.
private let forAll: [(code: String, advice: String)] = [
    ("AuthFailure", "AWS_ACCESS_KEY_ID"), ("InvalidClientTokenId", "AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "clock"), ("RequestExpired", "clock"),
    ("ExpiredToken", "AWS_SESSION_TOKEN"), ("ExpiredTokenException", "AWS_SESSION_TOKEN"),
    ("RequestInTheFuture", "clock"), ("RequestTimeTooSkewed", "clock"),
    ("Blocked", "AWS Support"), ("PendingVerification", "verification"),
    ("OptInRequired", "enable the region"), ("RequestLimitExceeded", "CloudTrail"),
    ("Throttling", "CloudTrail"), ("EC2ThrottledException", "CloudTrail"),
    ("InternalError", "Health Dashboard"), ("InternalFailure", "Health Dashboard"),
    ("ServiceUnavailable", "Health Dashboard"), ("Unavailable", "Health Dashboard"),
    ("MissingAuthenticationToken", "HTTPS_PROXY"), ("IncompleteSignature", "HTTPS_PROXY"),
    ("InvalidAction", "AWS_ENDPOINT_URL_EC2"), ("MissingAction", "AWS_ENDPOINT_URL_EC2"),
    ("MalformedQueryString", "HTTPS_PROXY"), ("InvalidQueryParameter", "HTTPS_PROXY"),
    ("UnsupportedProtocol", "AWS_ENDPOINT_URL_EC2"), ("NoSuchVersion", "AWS_ENDPOINT_URL_EC2"),
    ("502", "not EC2"), ("407", "HTTPS_PROXY"),
]

/// The advice for a code of one action.
private let forOne: [(code: String, action: EC2Action, advice: String)] = [
    ("UnauthorizedOperation", .describeVolumes, "allow ec2:DescribeVolumes for the resource *"),
    ("UnauthorizedOperation", .describeInstances, "allow ec2:DescribeInstances for the resource *"),
    ("UnauthorizedOperation", .describeInstanceTypes, "allow ec2:DescribeInstanceTypes for"),
    ("UnauthorizedOperation", .attachVolume, "allow ec2:AttachVolume for the volume and the inst"),
    ("UnauthorizedOperation", .detachVolume, "allow ec2:DetachVolume for the volume and the inst"),
    (
        "UnauthorizedOperation", .createTags,
        "allow ec2:CreateTags for the volume and the tags polar"
    ),
    (
        "UnauthorizedOperation", .deleteTags,
        "allow ec2:DeleteTags for the volume and the tags polar"
    ),
    ("InvalidVolume.NotFound", .attachVolume, "check the volume's id"),
    ("InvalidVolume.NotFound", .createTags, "check the volume's id"),
    ("InvalidVolumeID.Malformed", .detachVolume, "check the volume's id"),
    ("InvalidID", .createTags, "check the volume's id"),
    (
        "InvalidVolume.ZoneMismatch", .attachVolume,
        "place the task in the volume's Availability Zone"
    ),
    ("InvalidVolumeID.ZoneMismatch", .attachVolume, "restore a snapshot"),
    ("CustomerKeyHasBeenRevoked", .attachVolume, "kms:CreateGrant"),
    ("EncryptedVolumesNotSupported", .attachVolume, "another instance type"),
    ("AttachmentLimitExceeded", .attachVolume, "place the task on another"),
    ("ResourceLimitExceeded", .attachVolume, "place the task on another"),
    ("VolumeInUse", .attachVolume, "stop the task"),
    ("IncorrectInstanceState", .attachVolume, "wait until the instance"),
    ("IncorrectInstanceState", .detachVolume, "wait until the instance"),
    ("UnsupportedOperation", .attachVolume, "another instance type"),
    ("OperationNotPermitted", .attachVolume, "an AWS service manages the volume or the inst"),
    ("OperationNotPermitted", .detachVolume, "root volume"),
    ("InvalidInstanceID.NotFound", .attachVolume, "INSTANCE_ID"),
    ("InvalidInstanceID.Malformed", .attachVolume, "INSTANCE_ID"),
    ("InvalidInstanceID.NotFound", .detachVolume, "the instance is gone"),
    ("TagLimitExceeded", .createTags, "remove one"),
    ("TagPolicyViolation", .createTags, "tag policy"),
]

/// Codes that mean a bug in this program, that EC2's message explains in full, that the program
/// handles by itself, or that resolve themselves.
private let forNone: [(code: String, actions: [EC2Action])] = [
    ("DryRunOperation", EC2Action.allCases), ("IdempotentParameterMismatch", EC2Action.allCases),
    ("InvalidCharacter", EC2Action.allCases), ("InvalidParameter", EC2Action.allCases),
    ("InvalidPaginationToken", EC2Action.allCases), ("MissingParameter", EC2Action.allCases),
    ("InvalidParameterCombination", EC2Action.allCases),
    ("InvalidParameterDependency", EC2Action.allCases),
    ("InvalidParameterValue", EC2Action.allCases), ("UnknownParameter", EC2Action.allCases),
    ("UnsupportedInstanceAttribute", EC2Action.allCases), ("ValidationError", EC2Action.allCases),
    ("InvalidFilter", [.describeVolumes, .describeInstances, .describeInstanceTypes]),
    ("InvalidInstanceType", [.describeInstanceTypes]), ("InvalidDevice.InUse", [.attachVolume]),
    ("IncorrectState", [.attachVolume, .detachVolume]),
    ("InvalidAttachment.NotFound", [.detachVolume]), ("UnsupportedOperation", [.detachVolume]),
    ("InvalidTagKey.Malformed", [.createTags, .deleteTags]),
    ("ConcurrentTagAccess", [.createTags, .deleteTags]),
]

@Suite struct EC2AdviceTests {
    @Test(arguments: forAll.map(\.code))
    func `a code that any action can return has one advice`(_ code: String) throws {
        let expected = try #require(forAll.first { $0.code == code }?.advice)
        for action in EC2Action.allCases {
            let found = try #require(advice(code, action))
            #expect(found.contains(expected), "\(action)")
        }
    }

    @Test(arguments: forOne.indices)
    func `a code of one action has its own advice`(_ index: Int) throws {
        let (code, action, expected) = forOne[index]
        let found = try #require(advice(code, action))
        #expect(found.contains(expected))
    }

    @Test(arguments: forNone.map(\.code))
    func `there is no advice if an operator can do nothing`(_ code: String) throws {
        let actions = try #require(forNone.first { $0.code == code }?.actions)
        for action in actions { #expect(advice(code, action) == nil, "\(action)") }
    }

    @Test func `a rejected key is named, with each permission that EC2 needs`() throws {
        let found = try #require(advice("CustomerKeyHasBeenRevoked", .attachVolume, key: key))
        for permission in [
            "CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext",
            "ReEncrypt*",
        ] {
            #expect(found.contains("kms:" + permission))
        }
        #expect(found.contains(key))
        let unnamed = try #require(advice("CustomerKeyHasBeenRevoked", .attachVolume))
        #expect(unnamed.contains("the volume's KMS key"))
    }

    @Test func `for an encrypted volume, an ended attachment is blamed on its key`() {
        let encrypted = adviceOnEndedAttachment(kmsKeyID: key)
        #expect(encrypted.contains(key) && encrypted.contains("kms:CreateGrant"))
        // Somebody may have detached it nevertheless.
        #expect(encrypted.contains("CloudTrail"))
        let plain = adviceOnEndedAttachment(kmsKeyID: nil)
        #expect(plain.hasPrefix("find out in CloudTrail") && !plain.contains("kms"))
    }

    /// The form of EC2's message since 2023.
    @Test func `an explicit deny is not answered with a permission to add`() throws {
        let message =
            "You are not authorized to perform this operation. User: arn:aws:sts::1:assumed-role/r/i-1 is "
            + "not authorized to perform: ec2:DetachVolume on resource: arn:aws:ec2:eu-west-1:1:volume/v "
            + "with an explicit deny in a service control policy"
        let found = try #require(advice("UnauthorizedOperation", .detachVolume, message))
        #expect(found.contains("denies ec2:DetachVolume") && !found.contains("allow"))
    }

    @Test func `there is advice for missing credentials, but not for silence`() {
        let missing = EC2Failure.noCredentials(reason: "none").advice(on: .describeVolumes)
        #expect(missing?.contains("plugin/iam-policy.json") == true)
        for failure: EC2Failure in [
            .unanswered(reason: "r", mayHaveApplied: true), .malformed(reason: "r"),
            .outdated(reason: "r"),
        ] {
            #expect(failure.advice(on: .detachVolume) == nil)
        }
    }

    @Test func `a failed call is told with what was being done, and any other error as it is`() {
        let failure = EC2Failure.malformed(reason: "no XML")
        let told = failure.told(doing: "look", on: .describeVolumes, otherwise: "look again")
        #expect(told.reason == .cloud && told.advice == "look again")
        #expect("\(told)".contains("look") && "\(told)".contains("no XML"))
        let error: any Error = failure
        #expect(error.told(doing: "look", on: .describeVolumes) is OperationError)
        let other = OperationError(.system, doing: "look", found: "nothing")
        let same = other.told(doing: "see", on: .describeVolumes)
        #expect(same as? OperationError == other)
    }
}
