import Base
import EC2Model
import HTTPWire
import Ring

/// The EC2 Query API.
@RingActor
struct QueryEndpoint {
    private let simulator: Simulator
    private let verifier: RequestVerifier

    private static let namespace = "http://ec2.amazonaws.com/doc/\(Region.apiVersion)/"

    init(_ simulator: Simulator) {
        self.simulator = simulator
        verifier = RequestVerifier(region: simulator.region.name)
    }

    func handle(_ request: HTTPRequest) async -> Outcome {
        let requestID = makeRequestID()
        guard let parameters = parameters(of: request) else {
            return .answer(
                refusal(APIError("MalformedQueryString", "The query is malformed."), requestID))
        }
        let action = parameters["Action"] ?? ""
        simulator.counters.calls[action, default: 0] += 1
        await delay()
        let fault = simulator.region.faults.take(action)
        if let fault {
            simulator.counters.faults += 1
            simulator.region.note(
                "fault", nil, nil, "\(action): \(fault)", at: RingActor.ring.now)
        }
        switch fault {
        case .lostBefore: return .drop
        case .reset: return .reset
        case .hang: return .hang
        case .late(let milliseconds): await pause(.milliseconds(milliseconds))
        case .held: await simulator.faultsRemoved()
        case .error(let error): return .answer(refusal(error, requestID))
        default: break
        }
        let response = await answer(request, action, parameters, requestID)
        await delay()
        switch fault {
        case .lostAfter: return .drop
        case .truncated: return .truncated(response)
        case .slow(let milliseconds): return .trickled(response, .milliseconds(milliseconds))
        default: return .answer(response)
        }
    }

    /// Half of the duration of a call.
    private func delay() async {
        let latency = simulator.region.latency.api
        if latency > .zero { await pause(latency / 2) }
    }

    private func pause(_ duration: Duration) async {
        try? await RingActor.ring.sleep(until: RingActor.ring.now + duration)
    }

    private func answer(
        _ request: HTTPRequest, _ action: String, _ parameters: QueryParameters,
        _ requestID: String
    ) async -> HTTPResponse {
        do throws(APIError) {
            try verifier.verify(request, simulator.credentials, at: simulator.now.unixSeconds)
            guard !action.isEmpty else {
                throw APIError("MissingAction", "No action was supplied with this request.")
            }
            guard parameters["Version"] == Region.apiVersion else {
                throw APIError(
                    "NoSuchVersion",
                    "The requested version (\(parameters["Version"] ?? "")) of service AmazonEC2 "
                        + "does not exist")
            }
            try simulator.region.admit(action, parameters, at: RingActor.ring.now)
            let members = try await simulator.perform(action, parameters)
            let document = XMLNode(
                action + "Response", [XMLNode("requestId", requestID)] + members
            ).document(namespace: Self.namespace)
            return response(200, document, requestID)
        } catch {
            return refusal(error, requestID)
        }
    }

    private func refusal(_ error: APIError, _ requestID: String) -> HTTPResponse {
        simulator.counters.errors[error.code, default: 0] += 1
        return response(error.status, error.document(requestID: requestID), requestID)
    }

    private func response(_ status: Int, _ document: String, _ requestID: String) -> HTTPResponse {
        var response = HTTPResponse(
            status: status, contentType: "text/xml;charset=UTF-8", text: document)
        response.headers["x-amzn-RequestId"] = requestID
        response.headers["Server"] = "AmazonEC2"
        return response
    }

    private func parameters(of request: HTTPRequest) -> QueryParameters? {
        let form = request.method == "POST" ? request.body : Array((request.query ?? "").utf8)
        return QueryParameters(form: form)
    }
}

/// The text of a random UUID.
private func makeRequestID() -> String {
    [8, 4, 4, 4, 12].map(randomHex).joined(separator: "-")
}
