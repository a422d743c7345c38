import Base
import Foundation
import JSON
import TestSupport
import Testing

@testable import AWSWire

/// The output of botocore_judge.py: requests with botocore's signatures, responses with botocore's
/// reading of them.
private func judgements(_ what: String, seed: Int, _ count: Int) throws -> [JSONValue] {
    let judge = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "botocore_judge.py").path(percentEncoded: false)
    let output = try Tool.run("/usr/bin/python3", ["-B", judge, what, "\(seed)", "\(count)"])
    let lines = output.utf8.split(separator: UInt8(ascii: "\n"))
    try #require(lines.count == count)
    return try lines.map { try JSONValue.parse(Array($0)) }
}

private func text(_ value: JSONValue, _ member: String) throws -> String {
    try #require(value[member]?.string, "\(member) in \(value)")
}

@Suite struct BotocoreSignatureTests {
    private func request(_ judgement: JSONValue) throws -> SigV4.Request {
        let headers = try #require(judgement["headers"]?.array).map { header in
            let pair = try #require(header.array)
            return SigV4.Header(
                name: try #require(pair[0].string), value: try #require(pair[1].string))
        }
        let body = try text(judgement, "body").utf8
        return SigV4.Request(
            method: try text(judgement, "method"), path: try text(judgement, "path"),
            query: try text(judgement, "query"), headers: headers, body: Array(body))
    }

    @Test(arguments: 1...4)
    func `requests are signed as botocore signs them`(seed: Int) throws {
        for judgement in try judgements("requests", seed: seed, 2_500) {
            let signed = sigV4.sign(
                try request(judgement),
                with: Credentials(
                    accessKeyID: try text(judgement, "accessKey"),
                    secretAccessKey: try text(judgement, "secretKey"),
                    sessionToken: judgement["token"]?.string),
                region: try text(judgement, "region"), service: try text(judgement, "service"),
                at: try #require(judgement["time"]?.integer))
            let last = try #require(signed.headers.last)
            let expected = try text(judgement, "authorization")
            guard last.name == "Authorization", last.value == expected else {
                let names = Set(signed.headers.dropLast().map { $0.name.lowercased() })
                let canonical = sigV4.canonicalRequest(signed, signedHeaders: names)
                #expect(canonical == (try text(judgement, "canonical")), "\(judgement)")
                Issue.record("\(last) is not \(expected)")
                return
            }
        }
    }
}

@Suite struct BotocoreAnswerTests {
    @Test(arguments: 1...4)
    func `answers are read as botocore reads them`(seed: Int) throws {
        var counts: [String: Int] = [:]
        for judgement in try judgements("answers", seed: seed, 2_500) {
            let action = try text(judgement, "action")
            let body = Array(try text(judgement, "body").utf8)
            let expected = try #require(judgement["expected"])
            let found = try found(action, body, judgement["volume"]?.string)
            counts[expected == .null ? "malformed" : action, default: 0] += 1
            guard found == expected else {
                Issue.record(
                    "\(found) is not \(expected): \(String(decoding: body, as: UTF8.self))")
                return
            }
        }
        #expect(counts.count == 7 && counts.values.allSatisfy { $0 > 100 }, "\(counts)")
    }

    /// The contents of the response, in the judge's form; null if it is malformed.
    private func found(_ action: String, _ body: [UInt8], _ volume: String?) throws -> JSONValue {
        do throws(EC2Failure) {
            switch action {
            case "DescribeVolumes": return .array(try EC2Answer.volumes(body).map(json))
            case "DescribeInstances": return .array(try EC2Answer.instances(body).map(json))
            case "DescribeInstanceTypes":
                return json(try EC2Answer.attachmentLimit(body, of: "m5d.large"))
            case "error":
                return json(EC2Answer.refusal(status: 400, body: body, requestIDHeader: nil))
            default:
                let id = volume.flatMap { VolumeID($0) } ?? VolumeID(literal: "vol-00000000")
                return json(try EC2Answer.attachment(body, of: id, action: action))
            }
        } catch {
            guard case .malformed = error else { throw error }
            return .null
        }
    }

    private func json(_ volume: VolumeDescription) -> JSONValue {
        [
            "id": .string(volume.id.description), "state": .string(name(volume.state)),
            "zone": .string(volume.availabilityZone), "size": .integer(Int64(volume.size)),
            "snapshot": optional(volume.snapshotID), "type": .string(volume.volumeType),
            "multiAttach": .bool(volume.multiAttachEnabled),
            "attachments": .array(volume.attachments.map(json)),
            "tags": .object(JSONObject(volume.tags.mapValues { .string($0) })),
        ]
    }

    private func json(_ attachment: VolumeAttachment) -> JSONValue {
        [
            "instance": optional(attachment.instance?.description),
            "device": optional(attachment.device), "state": .string(name(attachment.state)),
        ]
    }

    private func json(_ instance: InstanceDescription) -> JSONValue {
        [
            "id": .string(instance.id.description), "state": .string(name(instance.state)),
            "type": .string(instance.instanceType), "zone": .string(instance.availabilityZone),
            "mappings": .array(
                instance.mappings.map { mapping in
                    [.string(mapping.deviceName), optional(mapping.volume?.description)]
                }),
            "interfaces": .integer(Int64(instance.networkInterfaces)),
        ]
    }

    private func json(_ limit: AttachmentLimit?) -> JSONValue {
        guard let limit else { return [:] }
        return [
            "max": .integer(Int64(limit.volumesMax)), "shared": .bool(limit.isShared),
            "disks": .integer(Int64(limit.instanceStoreDisks)),
        ]
    }

    private func json(_ failure: EC2Failure) -> JSONValue {
        guard case .refused(let code, let message, let request) = failure else { return .null }
        return [
            "code": .string(code), "message": .string(message), "request": .string(request),
        ]
    }

    private func optional(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }

    private func name(_ state: VolumeDescription.State) -> String {
        switch state {
        case .inUse: "in-use"
        case .other(let text): text
        default: "\(state)"
        }
    }

    private func name(_ state: VolumeAttachment.State) -> String {
        if case .other(let text) = state { text } else { "\(state)" }
    }

    private func name(_ state: InstanceDescription.State) -> String {
        switch state {
        case .shuttingDown: "shutting-down"
        case .other(let text): text
        default: "\(state)"
        }
    }
}
