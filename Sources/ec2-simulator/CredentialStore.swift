import AWSWire
import Base

/// The keys that the simulated account knows: fixed ones, and those that IMDS issued.
struct CredentialStore {
    private var known: [String: Credentials] = [:]
    private var current: [InstanceID: Credentials] = [:]
    private var issuedAt: [InstanceID: Int64] = [:]
    private var count = 0
    var role: String
    /// In seconds.
    var lifetime: Int64

    init(_ setting: Configuration.CredentialSetting) {
        role = setting.role
        lifetime = setting.lifetime
        for credentials in setting.fixed { known[credentials.accessKeyID] = credentials }
    }

    func credentials(_ accessKeyID: String) -> Credentials? { known[accessKeyID] }

    /// The role's keys for an instance. New ones are issued five minutes before the old ones
    /// expire, or after half their lifetime if that is shorter than ten minutes; the old ones
    /// remain valid until they expire.
    mutating func issue(
        to instance: InstanceID, at now: Int64
    ) -> (credentials: Credentials, issuedAt: Int64) {
        if let credentials = current[instance], let expiration = credentials.expiration,
            let issued = issuedAt[instance], expiration - now > min(300, lifetime / 2)
        {
            return (credentials, issued)
        }
        count += 1
        let number = String(count)
        let credentials = Credentials(
            accessKeyID: "ASIASIMULATOR" + String(repeating: "0", count: 7 - number.count) + number,
            secretAccessKey: randomText(40), sessionToken: randomText(120),
            expiration: now + lifetime)
        known[credentials.accessKeyID] = credentials
        current[instance] = credentials
        issuedAt[instance] = now
        return (credentials, now)
    }

    /// Makes IMDS issue new keys at the next request. With `revoke`, the old ones expire now.
    mutating func rotate(revoke: Bool, at now: Int64) {
        for credentials in current.values where revoke {
            known[credentials.accessKeyID]?.expiration = now
        }
        current = [:]
    }
}

/// `count` random letters and digits.
func randomText(_ count: Int) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    return String((0..<count).map { _ in alphabet[Int.random(in: alphabet.indices)] })
}

/// `count` random hexadecimal digits.
func randomHex(_ count: Int) -> String {
    String((0..<count).map { _ in Array("0123456789abcdef")[Int.random(in: 0..<16)] })
}
