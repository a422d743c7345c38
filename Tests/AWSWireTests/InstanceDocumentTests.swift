import Base
import Testing

@testable import AWSWire

@Suite struct InstanceDocumentTests {
    @Test func `an identity document identifies the instance`() throws {
        let document = """
            {"accountId":"1","architecture":"arm64","availabilityZone":"eu-west-1b","billingProducts":null,
             "instanceId":"i-0123456789abcdef0","instanceType":"m7g.large","pendingTime":"x",
             "privateIp":"10.0.0.1","region":"eu-west-1","version":"2017-09-30"}
            """
        let id = try #require(InstanceID("i-0123456789abcdef0"))
        #expect(
            try InstanceIdentity(document: Array(document.utf8))
                == InstanceIdentity(
                    region: "eu-west-1", availabilityZone: "eu-west-1b", instanceID: id,
                    instanceType: "m7g.large", architecture: "arm64"))
    }

    @Test(arguments: [
        "", "<html/>", "{}", "[]", "{\"instanceId\":\"i-00000000\",\"region\":\"\"}",
        "{\"instanceId\":\"x\",\"region\":\"r\",\"availabilityZone\":\"z\"}",
        "{\"instanceId\":\"i-00000000\",\"availabilityZone\":\"z\"}",
    ])
    func `an identity document that lacks something is an error, never an empty region`(
        _ text: String
    ) {
        #expect(throws: DocumentError.self) { try InstanceIdentity(document: Array(text.utf8)) }
    }

    @Test func `role credentials are parsed with their expiry`() throws {
        let document = """
            {"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC",
             "AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","Expiration":"2026-01-01T06:00:00Z"}
            """
        #expect(
            try Credentials(document: Array(document.utf8))
                == Credentials(
                    accessKeyID: "ASIA", secretAccessKey: "s", sessionToken: "t",
                    expiration: 1_767_247_200))
    }

    @Test func `container credentials have no code`() throws {
        let document = "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"s\"}"
        #expect(
            try Credentials(document: Array(document.utf8))
                == Credentials(accessKeyID: "A", secretAccessKey: "s"))
    }

    @Test func `a document that says why there are no credentials is quoted`() {
        let document = "{\"Code\":\"AssumeRoleUnauthorizedAccess\",\"Message\":\"cannot assume\"}"
        #expect(
            throws: DocumentError(
                "the credentials document says AssumeRoleUnauthorizedAccess: cannot assume")
        ) { try Credentials(document: Array(document.utf8)) }
    }

    @Test(arguments: [
        "{\"SecretAccessKey\":\"verysecret\",\"AccessKeyId\":\"A\",,}",
        "{\"SecretAccessKey\":\"verysecret\"}", "{\"SecretAccessKey\":verysecret}",
        "{\"SecretAccessKey\":\"verysecret\",\"AccessKeyId\":\"A\",\"Expiration\":\"soon\"}",
    ])
    func `an error about credentials shows no secret`(_ text: String) {
        #expect {
            try Credentials(document: Array(text.utf8))
        } throws: { !"\($0)".contains("verysecret") }
    }

    @Test func `the role is the list's first line`() {
        #expect(
            instanceProfileRole(list: Array("ecsInstanceRole\nother\n".utf8)) == "ecsInstanceRole")
        #expect(instanceProfileRole(list: Array(" \n".utf8)) == nil)
    }
}
