package import Base

/// The EC2 calls of the plugin, with their names in IAM, CloudTrail and the API reference.
package enum EC2Action: String, Sendable, CaseIterable {
    case describeVolumes = "DescribeVolumes"
    case describeInstances = "DescribeInstances"
    case describeInstanceTypes = "DescribeInstanceTypes"
    case attachVolume = "AttachVolume"
    case detachVolume = "DetachVolume"
    case createTags = "CreateTags"
    case deleteTags = "DeleteTags"

    /// What IAM must allow, and on which resources if that is not obvious.
    fileprivate var permission: String {
        switch self {
        case .attachVolume, .detachVolume: "ec2:\(rawValue) for the volume and the instance"
        case .createTags, .deleteTags: "ec2:\(rawValue) for the volume and the tags \(leaseTags)"
        // IAM has no resources for these.
        case .describeVolumes, .describeInstances, .describeInstanceTypes:
            "ec2:\(rawValue) for the resource *"
        }
    }
}

private let leaseTags = "polarity-ecs-ebs-plugin:*"

/// The permissions on an encrypted volume's key that the caller of AttachVolume needs.
///
/// Source: docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html.
private let keyPermissions =
    "kms:CreateGrant, kms:Decrypt, kms:DescribeKey, kms:GenerateDataKeyWithoutPlaintext and "
    + "kms:ReEncrypt*"

extension EC2Failure {
    /// What an operator can do about this failure of `action`; nil if EC2's message says
    /// everything, or if only time helps.
    ///
    /// - Parameter kmsKeyID: the key of the volume, if it is known to be encrypted.
    package func advice(on action: EC2Action, kmsKeyID: String? = nil) -> String? {
        switch self {
        case .refused(let code, let message, _):
            if isThrottling {
                return
                    "something in the account calls EC2 too often: CloudTrail shows what; try again"
            }
            return permissionAdvice(code, message, action)
                ?? volumeAdvice(code, action, kmsKeyID) ?? tagAdvice(code) ?? accountAdvice(code)
                ?? endpointAdvice(code)
        case .noCredentials:
            return "give the instance a role with the plugin's policy, plugin/iam-policy.json"
        // The reason says what failed, and whether it was the network.
        case .unanswered, .malformed, .outdated: return nil
        }
    }
}

extension EC2Failure {
    /// The failure as an operator reads it: what was being done, what EC2 answered, what to do.
    ///
    /// - Parameter advice: where EC2's own words are all that can be said.
    package func told(
        doing: String, on action: EC2Action, kmsKeyID: String? = nil,
        otherwise advice: String? = nil
    ) -> OperationError {
        OperationError(
            .cloud, doing: doing, found: description,
            advice: self.advice(on: action, kmsKeyID: kmsKeyID) ?? advice)
    }
}

extension Error {
    /// The failure, where it is one of a call to EC2.
    package var ec2Failure: EC2Failure? { self as? EC2Failure }

    /// A failed call to EC2 as an operator reads it; any other error as it is.
    package func told(doing: String, on action: EC2Action) -> any Error {
        ec2Failure?.told(doing: doing, on: action) ?? self
    }
}

/// What an operator can do about an attachment that EC2 accepted but that has ended. EC2 checks an
/// encrypted volume's key only after it has answered.
package func adviceOnEndedAttachment(kmsKeyID: String?) -> String {
    let other = "find out in CloudTrail who detached it; the next mount tries again"
    guard kmsKeyID != nil else { return other }
    return "\(keyAdvice(kmsKeyID)); if it does, \(other)"
}

private func keyAdvice(_ kmsKeyID: String?) -> String {
    "give the instance's role \(keyPermissions) of \(kmsKeyID ?? "the volume's KMS key"), by its own "
        + "policy or the key's, and check that the key is enabled"
}

// The codes: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.

private func permissionAdvice(_ code: String, _ message: String, _ action: EC2Action) -> String? {
    guard code == "UnauthorizedOperation" else { return nil }
    // EC2 names the kind of policy: an organization's, a VPC endpoint's, a permissions boundary.
    if message.range(ofFirst: "explicit deny") != nil {
        return
            "a policy denies ec2:\(action.rawValue) to the instance's role; EC2 says which kind: "
            + "exempt the role from it"
    }
    return "allow \(action.permission) to the instance's role"
}

private func volumeAdvice(
    _ code: String, _ action: EC2Action, _ kmsKeyID: String?
) -> String? {
    switch code {
    case "InvalidVolume.NotFound", "InvalidVolumeID.Malformed", "InvalidID":
        "check the volume's id, and that it is in this account and region"
    case "InvalidVolume.ZoneMismatch", "InvalidVolumeID.ZoneMismatch":
        "place the task in the volume's Availability Zone, or restore a snapshot of it in this one"
    case "CustomerKeyHasBeenRevoked": keyAdvice(kmsKeyID)
    case "EncryptedVolumesNotSupported":
        "instances of this type do not support encrypted volumes: use another instance type"
    case "AttachmentLimitExceeded", "ResourceLimitExceeded":
        "detach a volume from this instance, or place the task on another"
    case "VolumeInUse": "stop the task that uses the volume elsewhere"
    case "IncorrectInstanceState":
        "wait until the instance has completely started or stopped"
    case "UnsupportedOperation" where action == .attachVolume:
        "instances of this type do not support such a volume: use another instance type"
    case "OperationNotPermitted" where action == .detachVolume:
        "the root volume of a running instance and what an AWS service manages cannot be detached: use "
            + "another volume"
    case "OperationNotPermitted":
        "an AWS service manages the volume or the instance: use another volume"
    case "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed":
        instanceAdvice(action)
    default: nil
    }
}

private func instanceAdvice(_ action: EC2Action) -> String {
    action == .attachVolume
        ? "check the settings INSTANCE_ID and REGION, and that the credentials are of the instance's own "
            + "account"
        : "the instance is gone, and EC2 detaches what it had: try again"
}

private func tagAdvice(_ code: String) -> String? {
    switch code {
    case "TagLimitExceeded":
        "the volume has as many tags as EC2 allows, 50: remove one that is not needed"
    case "TagPolicyViolation":
        "let the organization's tag policy allow the tags \(leaseTags) on volumes"
    default: nil
    }
}

private func accountAdvice(_ code: String) -> String? {
    switch code {
    case "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch":
        "check that this machine's clock is right, and the keys in AWS_ACCESS_KEY_ID and "
            + "AWS_SECRET_ACCESS_KEY if they are set"
    case "RequestExpired", "ExpiredToken", "ExpiredTokenException", "RequestInTheFuture",
        "RequestTimeTooSkewed":
        "set this machine's clock, and renew AWS_SESSION_TOKEN if it is set"
    case "Blocked": "the AWS account is blocked: contact AWS Support"
    case "PendingVerification", "OptInRequired":
        "the AWS account may not use EC2 in this region yet: finish its verification, or enable the region"
    case "InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable":
        "EC2 itself has a problem: look at the AWS Health Dashboard; try again"
    default: nil
    }
}

/// Codes which show that something other than EC2 answered, or that EC2 did not receive what was
/// sent.
private func endpointAdvice(_ code: String) -> String? {
    switch code {
    case "MissingAuthenticationToken", "IncompleteSignature", "InvalidAction", "MissingAction",
        "MalformedQueryString", "InvalidQueryParameter", "UnsupportedProtocol", "NoSuchVersion":
        "check AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL and HTTPS_PROXY: what answers there is not EC2, or "
            + "the request was changed in transit"
    // If the response names no code, the code is its status.
    case _ where Int(code) != nil:
        "check AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL and HTTPS_PROXY: what answered is not EC2"
    default: nil
    }
}
