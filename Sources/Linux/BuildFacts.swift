import Base

/// What was built, as environment variables: one `NAME=VALUE` per line, in a file of the plugin's
/// root file system. Empty if there is no such file, as outside of a plugin.
///
/// The plugin's configuration could also set them, but `docker plugin upgrade` keeps the values of
/// the previous version.
package func buildFacts(
    in path: String = "/etc/polarity-ecs-ebs-plugin/build"
) -> [String: String] {
    let text = (try? contents(of: path, limit: Limit.buildFileMax)) ?? []
    let lines = text.split(separator: UInt8(ascii: "\n")).compactMap { line in
        line.firstIndex(of: UInt8(ascii: "=")).map { mark in
            (
                String(decoding: line[..<mark], as: UTF8.self),
                String(decoding: line[(mark + 1)...], as: UTF8.self)
            )
        }
    }
    return Dictionary(lines) { $1 }
}
