import TLS
import Testing

@testable import AWSWire

let sigV4 = SigV4(sha256: Digest.sha256) { HMAC.sha256(key: $0, data: $1) }

private func credentials(_ token: String? = nil) -> Credentials {
    Credentials(
        accessKeyID: "AKIDEXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        sessionToken: token)
}

@Suite struct SigV4Tests {
    private func signedForm(at time: Int64 = 1_440_938_160) -> SigV4.Request {
        sigV4.sign(
            SigV4.Request(
                method: "POST", headers: [("Host", "ec2.eu-west-1.amazonaws.com")],
                body: Array("Action=DescribeVolumes".utf8)), with: credentials("token"),
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
                secretAccessKey: credentials().secretAccessKey)
        }
        #expect(signature(of: signed) == authorization.signature)
        var altered = signed
        altered.body.append(0)
        #expect(signature(of: altered) != authorization.signature)
    }

    @Test func `an authorization of another kind is rejected`() {
        for text in ["", "Basic eDp5", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e"]
        {
            #expect(SigV4.Authorization(text) == nil)
        }
    }

    @Test func `an encoded path is encoded once more`() {
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
