/// Why a document was rejected. Lines and columns count from 1.
package enum XMLError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Not well-formed; `reason` is expat's.
    case malformed(reason: String, line: Int, column: Int)
    /// A document type declaration, which could declare entities; no AWS response has one.
    case documentType
    /// A bound of `Limit` was reached: `what` names it.
    case limit(what: String, max: Int)
    case outOfMemory

    package var description: String {
        switch self {
        case .malformed(let reason, let line, let column):
            "not well-formed XML: \(reason) at line \(line), column \(column)"
        case .documentType: "the XML declares a document type, which is not accepted"
        case .limit(let what, let max): "the XML has more than \(max) \(what)"
        case .outOfMemory: "there is not enough memory to parse the XML"
        }
    }
}
