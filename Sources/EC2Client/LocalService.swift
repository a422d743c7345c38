import AWSWire
import Base
import HTTPWire
import Logging
import Ring

/// A service on this host or its link that serves only this host: the metadata service, or a
/// container's credentials endpoint. It is never reached through a proxy, and a failed request is
/// retried a few times.
struct LocalService: Sendable {
    let endpoint: Endpoint
    let transport: any HTTPTransport
    let time: any TimeSource
    let log: Logger
    let random: @Sendable () -> Double

    /// Returns the first response that is neither throttling nor a 5xx, or the last one. Throws
    /// `TransportFailure` if the last attempt had no response, or `CancellationError`.
    @RingActor func send(_ request: HTTPRequest, by deadline: Instant) async throws -> HTTPResponse
    {
        var request = request
        request.target = endpoint.path + request.target
        for attempt in 1... {
            let answer = await attemptOnce(request, by: deadline)
            if case .success(let response) = answer, !isPassing(response.status) { return response }
            let pause = Limit.retryDelayMin * (1 << attempt) * random()
            guard attempt < Limit.attemptsMax, time.now + pause < deadline else {
                return try answer.get()
            }
            log.warning(
                "request to a local service failed: trying again",
                metadata: ["service": "\(endpoint)", "error": "\(told(answer))"])
            try await time.sleep(until: time.now + pause)
        }
        preconditionFailure("the attempts are bounded")
    }

    @RingActor private func attemptOnce(_ request: HTTPRequest, by deadline: Instant) async
        -> Result<HTTPResponse, TransportFailure>
    {
        do {
            let attemptDeadline = min(deadline, time.now + Limit.imdsTimeMax)
            return .success(
                try await transport.send(
                    request, to: endpoint, by: attemptDeadline, bodyMax: Limit.imdsResponseBodyMax,
                    isRepeatable: true, sentBy: nil))
        } catch {
            return .failure(error)
        }
    }

    private func isPassing(_ status: Int) -> Bool { status == 429 || status >= 500 }

    private func told(_ answer: Result<HTTPResponse, TransportFailure>) -> String {
        switch answer {
        case .success(let response): "it answered \(response.status)"
        case .failure(let failure): failure.reason
        }
    }
}
