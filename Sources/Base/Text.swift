// Searching text. The standard library's own search is in _StringProcessing, which would bring a
// parser for regular expressions into the static daemon, 1.3 MB.

extension StringProtocol {
    /// Where `part` occurs first; nil if it does not occur or is empty.
    package func range(ofFirst part: String) -> Range<Index>? {
        guard let first = part.first else { return nil }
        var start = startIndex
        while let found = self[start...].firstIndex(of: first) {
            if self[found...].hasPrefix(part) {
                return found..<index(found, offsetBy: part.count)
            }
            start = index(after: found)
        }
        return nil
    }

    /// The text with every occurrence of `part` replaced.
    package func replacingAll(_ part: String, by other: String) -> String {
        var result = ""
        var rest = self[...]
        while let found = rest.range(ofFirst: part) {
            result += rest[..<found.lowerBound] + other
            rest = rest[found.upperBound...]
        }
        return result + rest
    }
}
