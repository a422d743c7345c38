/// An error of the EC2 API.
///
/// Codes and their meaning: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
package struct APIError: Error, Sendable, Equatable {
    package var code: String
    package var message: String
    package var status: Int

    package init(_ code: String, _ message: String, status: Int = 400) {
        self.code = code
        self.message = message
        self.status = status
    }

    package func document(requestID: String) -> String {
        let error = XMLNode("Error", [XMLNode("Code", code), XMLNode("Message", message)])
        return XMLNode(
            "Response",
            [XMLNode("Errors", [error]), XMLNode("RequestID", requestID)]
        ).document()
    }
}

extension APIError {
    static func missingParameter(_ name: String) -> APIError {
        APIError("MissingParameter", "The request must contain the parameter \(name)")
    }

    static func invalidValue(_ value: String, for name: String, _ why: String) -> APIError {
        APIError(
            "InvalidParameterValue", "Value (\(value)) for parameter \(name) is invalid. \(why)")
    }

    static func volumesNotFound(_ ids: [String]) -> APIError {
        let (noun, verb) = ids.count == 1 ? ("volume", "does") : ("volumes", "do")
        let list = ids.joined(separator: ", ")
        return APIError("InvalidVolume.NotFound", "The \(noun) '\(list)' \(verb) not exist.")
    }

    static func snapshotNotFound(_ id: String) -> APIError {
        APIError("InvalidSnapshot.NotFound", "The snapshot '\(id)' does not exist.")
    }

    static func unsupported(_ parameter: String, _ type: String) -> APIError {
        APIError(
            "InvalidParameterCombination",
            "The parameter \(parameter) is not supported for \(type) volumes.")
    }

    static func instancesNotFound(_ ids: [String]) -> APIError {
        let list = ids.joined(separator: ", ")
        return APIError(
            "InvalidInstanceID.NotFound",
            ids.count == 1
                ? "The instance ID '\(list)' does not exist"
                : "The instance IDs '\(list)' do not exist")
    }
}
