/// An element of a response to be written.
package struct XMLNode: Sendable, Equatable {
    package enum Content: Sendable, Equatable {
        case text(String)
        case children([XMLNode])
    }

    package var name: String
    package var content: Content

    package init(_ name: String, _ text: String) {
        self.name = name
        content = .text(text)
    }

    package init(_ name: String, _ children: [XMLNode]) {
        self.name = name
        content = .children(children)
    }

    /// A list in EC2's form: `<name><item>…</item>…</name>`.
    package static func list(_ name: String, _ items: [[XMLNode]]) -> XMLNode {
        XMLNode(name, items.map { XMLNode("item", $0) })
    }

    /// The element as a document with the default namespace `namespace`.
    package func document(namespace: String? = nil) -> String {
        var text = #"<?xml version="1.0" encoding="UTF-8"?>"# + "\n"
        write(to: &text, attributes: namespace.map { " xmlns=\"\($0)\"" } ?? "")
        return text
    }

    private func write(to output: inout String, attributes: String) {
        output += "<\(name)\(attributes)>"
        switch content {
        case .text(let text): Self.escape(text, to: &output)
        case .children(let children):
            for child in children { child.write(to: &output, attributes: "") }
        }
        output += "</\(name)>"
    }

    private static func escape(_ text: String, to output: inout String) {
        for character in text.unicodeScalars {
            switch character {
            case "&": output += "&amp;"
            case "<": output += "&lt;"
            case ">": output += "&gt;"
            case "\r": output += "&#13;"
            default: output.unicodeScalars.append(character)
            }
        }
    }
}
