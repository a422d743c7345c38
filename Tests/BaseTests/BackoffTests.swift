import Base
import Testing

@Suite struct BackoffTests {
    @Test func `each pause is longer than the one before, up to the longest`() {
        var twofold = Backoff(from: .seconds(1), to: .seconds(5), .twofold)
        let doubled = (0..<5).map { _ in twofold.next() }
        #expect(doubled == [1, 2, 4, 5, 5].map { .seconds($0) })
        var byHalf = Backoff(from: .milliseconds(200), to: .milliseconds(500), .byHalf)
        let halves = (0..<4).map { _ in byHalf.next() }
        #expect(halves == [200, 300, 450, 500].map { .milliseconds($0) })
    }

    @Test func `a pause that is only asked for stays as long as it is`() {
        var backoff = Backoff.looks
        #expect(backoff.pause == Limit.lookIntervalMin)
        let first = backoff.next()
        #expect(first == Limit.lookIntervalMin && backoff.pause > first)
    }
}
