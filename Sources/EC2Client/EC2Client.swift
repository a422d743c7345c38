// EC2Client
