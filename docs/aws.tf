terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "service_role" {
  description = "Name of the role that the service runs as"
  type        = string
}

# The secret alone: its value is put in by a person or by a pipeline, so that it never stands in Terraform's state.
resource "aws_secretsmanager_secret" "wise" {
  name        = "wise/production"
  description = "Client ID, client secret and mTLS material for the Wise Platform"
}

data "aws_iam_policy_document" "read" {
  statement {
    actions   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    resources = [aws_secretsmanager_secret.wise.arn]
  }
}

resource "aws_iam_role_policy" "read" {
  name   = "read-wise-credentials"
  role   = var.service_role
  policy = data.aws_iam_policy_document.read.json
}
