import AWSWire
import Base
import JSON
import VolumeCore
import XML

/// A document is the same after it was printed and parsed again. Readers of AWS's documents accept
/// or reject it.
func brokenXML(_ bytes: [UInt8]) -> String? {
    _ = try? EC2Answer.volumes(bytes)
    _ = try? EC2Answer.instances(bytes)
    _ = try? EC2Answer.attachmentLimit(bytes, of: "m5.large")
    if let volume = VolumeID("vol-0123456789abcdef0") {
        _ = try? EC2Answer.attachment(bytes, of: volume, action: "AttachVolume")
    }
    _ = try? EC2Answer.done(bytes, action: "CreateTags")
    _ = EC2Answer.refusal(status: 400, body: bytes, requestIDHeader: nil)
    guard let root = try? XMLElement.parse(bytes) else { return nil }
    var printed: [UInt8] = []
    guard print(root, to: &printed) else { return "an element has no name" }
    guard printed.count <= Limit.ec2ResponseBodyMax else { return nil }
    do {
        return try XMLElement.parse(printed) == root ? nil : "printed, the document differs"
    } catch {
        return "the printed document is refused: \(error)"
    }
}

/// False if an element has no name. Names get a prefix: those in a document may have lost one that
/// made them valid.
private func print(_ element: XMLElement, to output: inout [UInt8]) -> Bool {
    let name = element.name.contains(":") ? element.name : "p:\(element.name)"
    output += Array("<\(name)>".utf8)
    for byte in element.text.utf8 {
        switch byte {
        case UInt8(ascii: "<"), UInt8(ascii: ">"), UInt8(ascii: "&"), UInt8(ascii: "\r"):
            output += Array("&#\(byte);".utf8)
        default: output.append(byte)
        }
    }
    let areNamed = element.children.allSatisfy { print($0, to: &output) }
    output += Array("</\(name)>".utf8)
    return areNamed && !element.name.isEmpty
}

/// A document is the same after it was printed and parsed again, and so are options of a volume
/// that it contains.
func brokenJSON(_ bytes: [UInt8]) -> String? {
    _ = try? Credentials(document: bytes)
    _ = try? InstanceIdentity(document: bytes)
    guard let value = try? JSONValue.parse(bytes) else { return nil }
    let printed = value.serialised()
    do {
        let again = try JSONValue.parse(printed)
        guard again == value else { return "printed, the document differs" }
        guard again.serialised() == printed else { return "printed again, the bytes differ" }
    } catch {
        return "the printed document is refused: \(error)"
    }
    guard let members = value.object,
        let options = try? VolumeOptions(members.compactMapValues(\.string))
    else { return nil }
    return (try? VolumeOptions(options.dictionary)) == options ? nil : "printed, options differ"
}
