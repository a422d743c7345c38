import Base

/// What was created with client tokens.
///
/// Source: docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html. The messages:
/// github.com/kubernetes-sigs/aws-ebs-csi-driver/issues/1428 and
/// github.com/crossplane-contrib/provider-aws/issues/1858.
struct ClientTokens {
    private struct Use {
        var parameters: QueryParameters
        var volume: VolumeID
    }

    private var uses: [String: Use] = [:]
    /// In the order of their use.
    private var keys: [String] = []

    /// How many are remembered.
    private static let countMax = 10_000

    /// The volume that a call with the same token has created; nil if there is no such call.
    func volume(
        _ action: String, _ parameters: QueryParameters, exists: (VolumeID) -> Bool
    ) throws(APIError) -> VolumeID? {
        guard let token = parameters["ClientToken"], let use = uses["\(action) \(token)"] else {
            return nil
        }
        guard exists(use.volume) else {
            throw APIError(
                "IdempotentParameterMismatch",
                "The client token you have provided is associated with a resource that is already "
                    + "deleted. Please use a different client token.")
        }
        guard use.parameters == Self.compared(parameters) else {
            throw APIError(
                "IdempotentParameterMismatch",
                "Parameters on this idempotent request are inconsistent with parameters used in "
                    + "previous request(s)")
        }
        return use.volume
    }

    mutating func note(_ action: String, _ parameters: QueryParameters, created volume: VolumeID) {
        guard let token = parameters["ClientToken"] else { return }
        let key = "\(action) \(token)"
        uses[key] = Use(parameters: Self.compared(parameters), volume: volume)
        keys.append(key)
        guard keys.count > Self.countMax else { return }
        for key in keys.prefix(Self.countMax / 2) { uses[key] = nil }
        keys.removeFirst(Self.countMax / 2)
    }

    private static func compared(_ parameters: QueryParameters) -> QueryParameters {
        parameters.without(["Action", "Version", "ClientToken", "DryRun"])
    }
}
