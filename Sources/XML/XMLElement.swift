/// An element of a parsed document: names, text and order, nothing else.
///
/// Attributes, comments and processing instructions are dropped, and names lose their prefix: in
/// AWS's responses they have no meaning.
package struct XMLElement: Sendable, Equatable {
    package let name: String
    /// The character data between this element's tags, without that of its children. Empty if it
    /// only indents children.
    package let text: String
    package let children: [XMLElement]

    package init(_ name: String, text: String = "", children: [XMLElement] = []) {
        self.name = name
        self.text = text
        self.children = children
    }

    /// The first child of that name.
    package subscript(name: String) -> XMLElement? { children.first { $0.name == name } }

    /// The text of the first child of that name; nil if there is none or it is empty.
    package func text(of name: String) -> String? {
        guard let text = self[name]?.text, !text.isEmpty else { return nil }
        return text
    }

    /// The first element of that name below this one, in document order.
    package func descendant(_ name: String) -> XMLElement? {
        for child in children {
            if child.name == name { return child }
            if let found = child.descendant(name) { return found }
        }
        return nil
    }
}
