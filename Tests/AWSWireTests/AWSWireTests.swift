// AWSWireTests
