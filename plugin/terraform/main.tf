# The same as plugin/cloudformation.yaml, for Terraform: an ECS cluster whose instances have the
# plugin, and a service of one task with an EBS volume that follows it from instance to instance.
#
#   terraform apply -var subnet=subnet-... -var bucket=my-bucket \
#       -var sha256="$(sha256sum < polarity-ecs-ebs-plugin.amd64.tar.gz | cut -c 1-64)"

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

provider "aws" {
  # The plugin's tags say which instance has mounted a volume. Terraform would remove them from the
  # volumes that it manages, and other instances could then take a mounted volume.
  ignore_tags {
    key_prefixes = ["polarity-ecs-ebs-plugin:"]
  }
}

variable "subnet" {
  type        = string
  description = "A subnet with a route to ECS, EC2 and S3; a volume can only be used by instances in its own zone"
}

variable "bucket" {
  type        = string
  description = "The S3 bucket with polarity-ecs-ebs-plugin.amd64.tar.gz"
}

variable "sha256" {
  type        = string
  description = "The SHA-256 of that file, from sha256sum"

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.sha256))
    error_message = "A SHA-256 has 64 hexadecimal digits."
  }
}

variable "settings" {
  type        = string
  description = "Settings for docker plugin set, for example DETACH_AFTER=5m TAKEOVER=never"
  default     = ""
}

variable "name" {
  type    = string
  default = "ebs-demo"
}

data "aws_partition" "current" {}

data "aws_subnet" "instances" {
  id = var.subnet
}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
}

resource "aws_ecs_cluster" "this" {
  name = var.name
}

resource "aws_iam_role" "instance" {
  name_prefix = "${var.name}-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "ecs" {
  role       = aws_iam_role.instance.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_role_policy" "plugin" {
  name   = "polarity-ecs-ebs-plugin"
  role   = aws_iam_role.instance.id
  policy = replace(file("${path.module}/../iam-policy.json"), "arn:aws:", "arn:${data.aws_partition.current.partition}:")
}

resource "aws_iam_role_policy" "tarball" {
  name = "tarball"
  role = aws_iam_role.instance.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket}/polarity-ecs-ebs-plugin.*"
    }]
  })
}

resource "aws_iam_instance_profile" "instance" {
  name_prefix = "${var.name}-"
  role        = aws_iam_role.instance.name
}

resource "aws_launch_template" "instances" {
  name_prefix   = "${var.name}-"
  image_id      = data.aws_ssm_parameter.image.value
  instance_type = "m6i.large"

  iam_instance_profile {
    arn = aws_iam_instance_profile.instance.arn
  }

  # Containers need no access to the instance's role; the plugin uses the host's network.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type = "gp3"
      volume_size = 30
      encrypted   = true
    }
  }

  user_data = base64encode(join("\n", [
    "#!/bin/bash",
    "cluster='${aws_ecs_cluster.this.name}'",
    "tarball='s3://${var.bucket}/polarity-ecs-ebs-plugin.amd64.tar.gz'",
    "sha256='${var.sha256}'",
    "settings='${var.settings}'",
    file("${path.module}/../user-data.sh"),
  ]))
}

resource "aws_autoscaling_group" "instances" {
  name_prefix         = "${var.name}-"
  min_size            = 1
  max_size            = 2
  vpc_zone_identifier = [var.subnet]

  launch_template {
    id      = aws_launch_template.instances.id
    version = aws_launch_template.instances.latest_version
  }
}

resource "aws_ebs_volume" "data" {
  availability_zone = data.aws_subnet.instances.availability_zone
  type              = "gp3"
  size              = 10
  encrypted         = true
  # Destroying the example keeps its data.
  final_snapshot = true
}

resource "aws_ecs_task_definition" "writer" {
  family                   = var.name
  requires_compatibilities = ["EC2"]

  # Docker's name for the volume is the EBS volume's id.
  volume {
    name = aws_ebs_volume.data.id
    docker_volume_configuration {
      scope         = "shared"
      autoprovision = true
      driver        = "polarity-ecs-ebs-plugin"
    }
  }

  container_definitions = jsonencode([{
    name        = "writer"
    image       = "public.ecr.aws/docker/library/busybox:stable"
    memory      = 64
    command     = ["sh", "-c", "while date | tee -a /data/log; do sleep 60; done"]
    mountPoints = [{ sourceVolume = aws_ebs_volume.data.id, containerPath = "/data" }]
  }])
}

resource "aws_ecs_service" "writer" {
  name            = "writer"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.writer.arn
  desired_count   = 1
  # The old task stops before the new one starts, because the volume has one writer.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100
  depends_on                         = [aws_autoscaling_group.instances]
}
