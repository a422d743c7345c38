// EC2ClientTests
