import Glibc
import ParserChecks

/// The parser that this process feeds, by its name in the environment: libFuzzer refuses unknown
/// arguments.
private let checked: CheckedParser = {
    let name = getenv("FUZZED_PARSER").map { String(cString: $0) } ?? ""
    guard let parser = CheckedParser(rawValue: name) else {
        fatalError("FUZZED_PARSER is '\(name)', none of \(CheckedParser.allCases)")
    }
    return parser
}()

/// libFuzzer calls this for each input.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    if let broken = checked.broken(by: input) { fatalError(broken) }
    return 0
}
