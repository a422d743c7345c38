/// A date and time of the Gregorian calendar in UTC, for the formats that AWS, HTTP and Docker use.
package struct CivilTime: Sendable, Equatable {
    package var year: Int
    package var month: Int
    package var day: Int
    package var hour: Int
    package var minute: Int
    package var second: Int

    /// From seconds since 1970-01-01T00:00:00Z.
    ///
    /// The arithmetic treats years as beginning in March, so that the leap day is the last day of a
    /// year: howardhinnant.github.io/date_algorithms.html.
    package init(unixSeconds: Int64) {
        let (days, rest) = floorDivide(Int(unixSeconds), 86_400)
        let (era, dayOfEra) = floorDivide(days + 719_468, 146_097)
        let yearOfEra =
            (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        hour = rest / 3600
        minute = rest / 60 % 60
        second = rest % 60
    }

    /// Nil if a field is out of range. A leap second counts as the second before it.
    package init?(year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) {
        guard (1...9999).contains(year), (1...12).contains(month),
            (1...daysOf(month: month, year: year)).contains(day), (0...23).contains(hour),
            (0...59).contains(minute), (0...60).contains(second)
        else { return nil }
        self.year = year
        self.month = month
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = min(second, 59)
    }

    package var unixSeconds: Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let (era, yearOfEra) = floorDivide(shifted, 400)
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = era * 146_097 + dayOfEra - 719_468
        return Int64(days * 86_400 + hour * 3600 + minute * 60 + second)
    }

    /// `2015-08-30T12:36:00Z` (RFC 3339).
    package var rfc3339: String { filled("0000-00-00T00:00:00Z") }

    /// `20150830T123600Z` (ISO 8601's basic form, as SigV4 writes it).
    package var basic: String { filled("00000000T000000Z") }

    /// Writes the fields into the digits of a pattern; of a year with more than four digits, the
    /// last four.
    private func filled(_ pattern: String) -> String {
        let date = (Int(year.magnitude % 10_000) * 100 + month) * 100 + day
        var digits = ((date * 100 + hour) * 100 + minute) * 100 + second
        let pattern = pattern.utf8.span
        // Safe: each byte is initialised once, and the text is ASCII.
        return unsafe String(unsafeUninitializedCapacity: pattern.count) { bytes in
            for index in pattern.indices.reversed() {
                var byte = pattern[index]
                if byte == UInt8(ascii: "0") {
                    byte += UInt8(digits % 10)
                    digits /= 10
                }
                unsafe bytes.initializeElement(at: index, to: byte)
            }
            return pattern.count
        }
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`, for HTTP headers (RFC 9110, 5.6.7).
    package var httpDate: String {
        // 1970-01-01 was a Thursday.
        let weekday = floorDivide(floorDivide(Int(unixSeconds), 86_400).quotient + 4, 7).remainder
        let names = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        return "\(names[weekday]), \(padded(day)) \(monthNames[month - 1]) \(padded(year, 4)) "
            + "\(padded(hour)):\(padded(minute)):\(padded(second)) GMT"
    }

    /// Reads RFC 3339, with any fraction of a second (dropped) and any offset (applied).
    package init?(rfc3339 text: some StringProtocol) {
        var fields = Fields(text)
        guard let year = fields.number(4), fields.take("-"), let month = fields.number(2),
            fields.take("-"), let day = fields.number(2),
            fields.take("T") || fields.take("t") || fields.take(" "),
            let hour = fields.number(2), fields.take(":"), let minute = fields.number(2),
            fields.take(":"), let second = fields.number(2)
        else { return nil }
        if fields.take(".") { guard fields.skipDigits() else { return nil } }
        guard let offset = fields.offset(), fields.isAtEnd,
            let local = CivilTime(
                year: year, month: month, day: day, hour: hour, minute: minute, second: second)
        else { return nil }
        self.init(unixSeconds: local.unixSeconds - offset)
    }

    /// Reads the date of an HTTP header: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7; its two
    /// obsolete forms are not supported).
    package init?(httpDate text: some StringProtocol) {
        var fields = Fields(text)
        guard fields.skip(3), fields.take(","), fields.take(" "), let day = fields.number(2),
            fields.take(" "), let month = fields.month(), fields.take(" "),
            let year = fields.number(4), fields.take(" "), let hour = fields.number(2),
            fields.take(":"), let minute = fields.number(2), fields.take(":"),
            let second = fields.number(2), fields.takeAll(" GMT"), fields.isAtEnd
        else { return nil }
        self.init(year: year, month: month, day: day, hour: hour, minute: minute, second: second)
    }
}

private let monthNames = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
]

private func floorDivide(_ a: Int, _ b: Int) -> (quotient: Int, remainder: Int) {
    let (quotient, remainder) = a.quotientAndRemainder(dividingBy: b)
    return remainder < 0 ? (quotient - 1, remainder + b) : (quotient, remainder)
}

private func daysOf(month: Int, year: Int) -> Int {
    switch month {
    case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
}

private func padded(_ number: Int, _ width: Int = 2) -> String {
    var digits = String(number)
    while digits.utf8.count < width { digits = "0" + digits }
    return digits
}

/// Consumes the text of a time from its front.
private struct Fields {
    private var rest: ArraySlice<UInt8>

    init(_ text: some StringProtocol) { rest = Array(text.utf8)[...] }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard rest.first == UInt8(ascii: character) else { return false }
        rest.removeFirst()
        return true
    }

    mutating func takeAll(_ text: String) -> Bool {
        guard rest.starts(with: text.utf8) else { return false }
        rest.removeFirst(text.utf8.count)
        return true
    }

    mutating func skip(_ count: Int) -> Bool {
        guard rest.count >= count else { return false }
        rest.removeFirst(count)
        return true
    }

    mutating func skipDigits() -> Bool {
        let digits = rest.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        rest.removeFirst(digits.count)
        return !digits.isEmpty
    }

    mutating func number(_ width: Int) -> Int? {
        guard rest.count >= width else { return nil }
        var value = 0
        for byte in rest.prefix(width) {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            value = value * 10 + Int(byte - UInt8(ascii: "0"))
        }
        rest.removeFirst(width)
        return value
    }

    mutating func month() -> Int? {
        guard let index = monthNames.firstIndex(where: { rest.starts(with: $0.utf8) }) else {
            return nil
        }
        rest.removeFirst(3)
        return index + 1
    }

    /// `Z` or `+02:00`, in seconds east of UTC.
    mutating func offset() -> Int64? {
        if take("Z") || take("z") { return 0 }
        let sign: Int64
        if take("+") { sign = 1 } else if take("-") { sign = -1 } else { return nil }
        guard let hours = number(2), take(":"), let minutes = number(2), hours < 24, minutes < 60
        else { return nil }
        return sign * Int64(hours * 3600 + minutes * 60)
    }
}
