import TLS
import Testing

@testable import AWSWire

let sigV4 = SigV4(sha256: Digest.sha256) { HMAC.sha256(key: $0, data: $1) }

/// The keys and the scope that the published suite signs with.
private let suiteScope = SigV4.Scope(day: "20150830", region: "us-east-1", service: "service")
private let suiteTime: Int64 = 1_440_938_160
private let suiteToken =
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI"
    + "eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0"
    + "wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDry"
    + "pNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="

private func suiteCredentials(_ token: String? = nil) -> Credentials {
    Credentials(
        accessKeyID: "AKIDEXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        sessionToken: token)
}

@Suite struct SigV4SuiteTests {
    @Test(.enabled(if: Vectors.runnable, Vectors.skipped))
    func `every case of the published suite is signed as it says`() throws {
        let cases = try Vectors.signatureCases()
        #expect(cases.count >= 30)
        for name in cases {
            let request = try request(Vectors.text("\(name).req"))
            let signed = sign(request, as: name)
            let names = Set(signed.headers.map { $0.name.lowercased() })
                .subtracting(["authorization"])
                .subtracting(name.hasSuffix("header-after") ? ["x-amz-security-token"] : [])
            let canonical = sigV4.canonicalRequest(signed, signedHeaders: names)
            let toSign = sigV4.stringToSign(
                canonical, timestamp: "20150830T123600Z", scope: suiteScope)
            #expect(canonical == (try Vectors.text("\(name).creq")), "\(name)")
            #expect(toSign == (try Vectors.text("\(name).sts")), "\(name)")
            let authorization = signed.headers.last { $0.name == "Authorization" }?.value
            #expect(authorization == (try Vectors.text("\(name).authz")), "\(name)")
        }
    }

    /// Three cases bring a session token that their request does not show yet.
    private func sign(_ request: SigV4.Request, as name: String) -> SigV4.Request {
        var token: String?
        if name.hasSuffix("get-vanilla-with-session-token") {
            token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
        } else if name.hasSuffix("post-sts-header-after") {
            token = suiteToken
        }
        return sigV4.sign(
            request, with: suiteCredentials(token), region: suiteScope.region,
            service: suiteScope.service, at: suiteTime,
            token: name.hasSuffix("after") ? .afterSigning : .beforeSigning)
    }

    /// Reads the suite's request files: raw requests, where a line that begins with a space
    /// continues the header before it, and paths and queries may hold spaces and raw UTF-8.
    private func request(_ text: String) throws -> SigV4.Request {
        let halves = text.split(separator: "\n\n", maxSplits: 1, omittingEmptySubsequences: false)
        let lines = halves[0].split(separator: "\n")
        let line = try #require(lines.first)
        let method = line.prefix { $0 != " " }
        let target = line.dropFirst(method.count + 1).dropLast(" HTTP/1.1".count)
        let path = target.prefix { $0 != "?" }
        var headers: [SigV4.Header] = []
        for line in lines.dropFirst() {
            if line.first == " " {
                headers[headers.count - 1].value += "\n" + line
            } else {
                let name = line.prefix { $0 != ":" }
                headers.append((String(name), String(line.dropFirst(name.count + 1))))
            }
        }
        return SigV4.Request(
            method: String(method), path: String(path),
            query: String(target.dropFirst(path.count + 1)), headers: headers,
            body: halves.count == 2 ? Array(halves[1].utf8) : [])
    }
}

@Suite struct SigV4Tests {
    private func signedForm(at time: Int64 = suiteTime) -> SigV4.Request {
        sigV4.sign(
            SigV4.Request(
                method: "POST", headers: [("Host", "ec2.eu-west-1.amazonaws.com")],
                body: Array("Action=DescribeVolumes".utf8)), with: suiteCredentials("token"),
            region: "eu-west-1", service: "ec2", at: time)
    }

    @Test func `the date is added and signed`() throws {
        let signed = signedForm()
        #expect(signed.headers.first { $0.name == "X-Amz-Date" }?.value == "20150830T123600Z")
        let header = try #require(signed.headers.first { $0.name == "Authorization" }?.value)
        let authorization = try #require(SigV4.Authorization(header))
        #expect(authorization.signedHeaders == ["host", "x-amz-date", "x-amz-security-token"])
        #expect(authorization.scope.text == "20150830/eu-west-1/ec2/aws4_request")
    }

    @Test func `a signature is verified from what the request carries`() throws {
        let signed = signedForm()
        let header = try #require(signed.headers.first { $0.name == "Authorization" }?.value)
        let authorization = try #require(SigV4.Authorization(header))
        func signature(of request: SigV4.Request) -> String {
            sigV4.signature(
                of: request, signedHeaders: Set(authorization.signedHeaders),
                timestamp: "20150830T123600Z", scope: authorization.scope,
                secretAccessKey: suiteCredentials().secretAccessKey)
        }
        #expect(signature(of: signed) == authorization.signature)
        var altered = signed
        altered.body.append(0)
        #expect(signature(of: altered) != authorization.signature)
    }

    @Test func `an authorization of another kind is not read`() {
        for text in ["", "Basic eDp5", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e"]
        {
            #expect(SigV4.Authorization(text) == nil)
        }
    }

    @Test func `a path that is encoded already is encoded once more`() {
        let request = SigV4.Request(method: "GET", path: "/a%20b", headers: [("Host", "h")])
        #expect(
            sigV4.canonicalRequest(request, signedHeaders: ["host"]).hasPrefix("GET\n/a%2520b\n"))
    }
}

@Suite struct CredentialsTests {
    @Test func `no way to print credentials shows a secret`() {
        let credentials = Credentials(
            accessKeyID: "AKIDEXAMPLE", secretAccessKey: "verysecret", sessionToken: "sessiontoken")
        struct Holder { var credentials: Credentials? }
        var dumped = ""
        dump(Holder(credentials: credentials), to: &dumped)
        let texts: [String] = [
            "\(credentials)", String(reflecting: credentials), String(describing: [credentials]),
            "\(Holder(credentials: credentials))", dumped,
        ]
        for text in texts {
            #expect(!text.contains("verysecret"))
            #expect(!text.contains("sessiontoken"))
        }
        #expect("\(credentials)".contains("AKIDEXAMPLE"))
    }
}
