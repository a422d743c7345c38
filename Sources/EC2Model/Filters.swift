/// The `Filter.N` parameters of a Describe action: all must match, each by any of its values.
struct Filters {
    private var conditions: [(name: String, patterns: [String])] = []

    var isEmpty: Bool { conditions.isEmpty }

    init(_ parameters: QueryParameters) throws(APIError) {
        for index in parameters.indices("Filter") {
            guard let name = parameters["Filter.\(index).Name"] else {
                throw .missingParameter("filter name")
            }
            let patterns = parameters.list("Filter.\(index).Value")
            guard !patterns.isEmpty else {
                throw APIError("InvalidParameterValue", "The filter '\(name)' has no values")
            }
            conditions.append((name, patterns))
        }
    }

    /// Whether one of them is by tag.
    var useTags: Bool { conditions.contains { $0.name == "tag-key" || $0.name.hasPrefix("tag:") } }

    /// Whether something with these properties matches; `properties` returns the values for a
    /// filter, nil for a filter that the action does not support.
    func accept(
        tags: [String: String], _ properties: (String) -> [String]?
    ) throws(APIError) -> Bool {
        for (name, patterns) in conditions {
            guard let values = tagValues(name, tags) ?? properties(name) else {
                throw APIError("InvalidParameterValue", "The filter '\(name)' is invalid")
            }
            let holds = patterns.contains { pattern in
                values.contains { matches($0[...], pattern[...]) }
            }
            if !holds { return false }
        }
        return true
    }

    private func tagValues(_ name: String, _ tags: [String: String]) -> [String]? {
        if name == "tag-key" { return Array(tags.keys) }
        guard name.hasPrefix("tag:") else { return nil }
        return tags[String(name.dropFirst(4))].map { [$0] } ?? []
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text and `?` for any character.
private func matches(_ text: Substring, _ pattern: Substring) -> Bool {
    guard let first = pattern.first else { return text.isEmpty }
    if first == "*" {
        return matches(text, pattern.dropFirst())
            || !text.isEmpty && matches(text.dropFirst(), pattern)
    }
    guard let character = text.first, first == "?" || first == character else { return false }
    return matches(text.dropFirst(), pattern.dropFirst())
}

/// One page of a Describe action's results.
struct Page<Element> {
    var elements: [Element]
    var nextToken: String?

    /// The page that `MaxResults` and `NextToken` ask for; tokens are positions in `all`.
    init(_ all: [Element], _ parameters: QueryParameters, max: Int) throws(APIError) {
        guard let size = try parameters.integer("MaxResults") else {
            guard parameters["NextToken"] == nil else { throw .missingParameter("maxResults") }
            elements = all
            return
        }
        guard size >= 5 else {
            throw .invalidValue(
                "\(size)", for: "maxResults", "Expecting a value greater than or equal to 5.")
        }
        let start = try Self.position(parameters["NextToken"], count: all.count)
        let end = Swift.min(all.count, start + Swift.min(size, max))
        elements = Array(all[start..<end])
        nextToken = end < all.count ? "page-\(end)" : nil
    }

    private static func position(_ token: String?, count: Int) throws(APIError) -> Int {
        guard let token else { return 0 }
        guard token.hasPrefix("page-"), let position = Int(token.dropFirst(5)),
            (0...count).contains(position)
        else { throw APIError("InvalidNextToken", "The token '\(token)' is invalid") }
        return position
    }
}
