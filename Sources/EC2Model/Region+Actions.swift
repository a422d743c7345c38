package import Base

/// The Query API: takes an action and its parameters, returns the members of the response.
extension Region {
    package static let apiVersion = "2016-11-15"

    /// Counts the call against the account's rate. Call it before `perform`.
    package mutating func admit(
        _ action: String, _ parameters: QueryParameters, at now: Instant
    ) throws(APIError) {
        let isDescribe = action == "DescribeVolumes" || action == "DescribeInstances"
        let unfiltered =
            isDescribe && parameters.indices("Filter").isEmpty && parameters["MaxResults"] == nil
        guard throttle.admit(action, unfiltered: unfiltered, at: now) else {
            throw APIError("RequestLimitExceeded", "Request limit exceeded.", status: 503)
        }
    }

    /// Executes a call. `newID` generates the id of what the call creates: 17 hex digits.
    /// Then call `takeStorageOrders`.
    package mutating func perform(
        _ action: String, _ parameters: QueryParameters, at now: Moment, newID: () -> String
    ) throws(APIError) -> [XMLNode] {
        switch action {
        case "DescribeVolumes": return try describeVolumes(parameters, at: now)
        case "DescribeInstances": return try describeInstances(parameters)
        case "DescribeInstanceStatus": return try describeInstanceStatus(parameters)
        case "DescribeInstanceTypes": return try describeInstanceTypes(parameters)
        case "DescribeTags": return try describeTags(parameters)
        case "AttachVolume": return try attachVolume(parameters, at: now)
        case "DetachVolume": return try detachVolume(parameters, at: now)
        case "CreateVolume": return try createVolume(parameters, at: now, newID: newID)
        case "CopyVolumes": return try copyVolumes(parameters, at: now, newID: newID)
        case "DeleteVolume": return try deleteVolume(parameters, at: now)
        case "ModifyVolume": return try modifyVolume(parameters, at: now)
        case "DescribeVolumesModifications":
            return try describeVolumesModifications(parameters, at: now)
        case "CreateSnapshot": return try createSnapshot(parameters, at: now, newID: newID)
        case "DescribeSnapshots": return try describeSnapshots(parameters, at: now)
        case "DeleteSnapshot": return try deleteSnapshot(parameters, at: now)
        case "CreateTags": return try changeTags(parameters, at: now, create: true)
        case "DeleteTags": return try changeTags(parameters, at: now, create: false)
        case "StartInstances":
            return try changeInstances(parameters, from: [.stopped], .pending, .running, at: now)
        case "StopInstances":
            return try changeInstances(parameters, from: [.running], .stopping, .stopped, at: now)
        case "TerminateInstances":
            return try changeInstances(
                parameters, from: [.running, .stopped], .shuttingDown, .terminated, at: now)
        case "ModifyInstanceAttribute": return try modifyInstanceAttribute(parameters, at: now)
        default:
            throw APIError(
                "InvalidAction", "The action \(action) is not valid for this web service.")
        }
    }

    func refuseDryRun(_ parameters: QueryParameters) throws(APIError) {
        if try parameters.flag("DryRun") == true {
            throw APIError(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.",
                status: 412)
        }
    }
}
