/// What may be ordered of a volume of one type.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html and
/// docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html.
struct VolumeTypeRules {
    let type: String
    /// In GiB.
    var sizes: ClosedRange<Int>
    /// Nil for a type without provisioned IOPS.
    var iops: ClosedRange<Int>?
    /// How many IOPS each GiB allows; the lowest rate is allowed at any size.
    var iopsPerGiB = 0
    /// In MiB/s; nil for a type whose throughput cannot be ordered.
    var throughput: ClosedRange<Int>?

    init?(_ type: String) {
        self.type = type
        switch type {
        case "gp2": sizes = 1...16384
        case "gp3":
            sizes = 1...65536
            iops = 3000...80000
            iopsPerGiB = 500
            throughput = 125...2000
        case "io1":
            sizes = 4...16384
            iops = 100...64000
            iopsPerGiB = 50
        case "io2":
            sizes = 4...65536
            iops = 100...256_000
            iopsPerGiB = 1000
        case "st1", "sc1": sizes = 125...16384
        case "standard": sizes = 1...1024
        default: return nil
        }
    }

    /// The IOPS of a volume that was modified to this type, or for which none were ordered.
    var defaultIOPS: Int? { iops == nil ? nil : 3000 }
    var defaultThroughput: Int? { throughput?.lowerBound }

    /// How many IOPS one MiB/s needs.
    private static let iopsPerThroughput = 4

    /// Messages: github.com/kubernetes-sigs/aws-ebs-csi-driver pkg/cloud/cloud.go,
    /// github.com/rocicorp/mono/pull/4410, github.com/runs-on/runs-on/issues/260.
    func check(_ ordered: Specification) throws(APIError) {
        try requireSize(ordered.gibibytes)
        if let rate = ordered.iops {
            guard let iops else { throw .unsupported("iops", type) }
            try require(rate, in: iops, "iops")
            guard rate <= max(iops.lowerBound, iopsPerGiB * ordered.gibibytes) else {
                throw wrong(
                    "Iops to volume size ratio of \(decimal(rate, ordered.gibibytes)) is too high; "
                        + "maximum is \(iopsPerGiB)")
            }
        }
        if let rate = ordered.throughput {
            guard let throughput else { throw .unsupported("throughput", type) }
            try require(rate, in: throughput, "throughput")
            let iops = ordered.iops ?? 0
            guard rate * Self.iopsPerThroughput <= iops else {
                throw wrong(
                    "Throughput (MiBps) to iops ratio of \(decimal(rate, iops)) is too high; "
                        + "maximum is 0.250000 MiBps per iops")
            }
        }
        if ordered.multiAttach, type != "io1", type != "io2" {
            throw APIError(
                "InvalidParameterCombination",
                "Multi-Attach is not supported for volumes of type '\(type)'.")
        }
    }

    private func requireSize(_ gibibytes: Int) throws(APIError) {
        let size = "Volume of \(gibibytes)GiB is too"
        if gibibytes < sizes.lowerBound {
            throw wrong("\(size) small for volume type \(type); minimum is \(sizes.lowerBound)GiB.")
        }
        if gibibytes > sizes.upperBound {
            throw wrong("\(size) large for volume type \(type); maximum is \(sizes.upperBound)GiB.")
        }
    }

    private func require(
        _ rate: Int, in range: ClosedRange<Int>, _ name: String
    ) throws(APIError) {
        if rate < range.lowerBound {
            throw wrong("Volume \(name) of \(rate) is too low; minimum is \(range.lowerBound).")
        }
        if rate > range.upperBound {
            throw wrong("Volume \(name) of \(rate) is too high; maximum is \(range.upperBound).")
        }
    }

    private func wrong(_ message: String) -> APIError {
        APIError("InvalidParameterValue", message)
    }
}

/// A quotient with six decimals, as EC2 writes it.
private func decimal(_ dividend: Int, _ divisor: Int) -> String {
    let millionths = (dividend * 1_000_000 + divisor / 2) / max(1, divisor)
    let decimals = "\(millionths % 1_000_000)"
    return "\(millionths / 1_000_000)." + String(repeating: "0", count: 6 - decimals.count)
        + decimals
}
