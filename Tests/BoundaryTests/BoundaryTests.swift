// BoundaryTests
