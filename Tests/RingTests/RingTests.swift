// RingTests
