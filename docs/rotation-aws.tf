terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "secret_arn" {
  description = "ARN of the secret that is rotated; docs/aws.tf makes one"
  type        = string
}

variable "package" {
  description = "Zip file with wise-creds[aws] and wise-creds.toml at its top"
  type        = string
}

variable "alarm_topic" {
  description = "ARN of the SNS topic that tells the person who issues the secret"
  type        = string
}

variable "subnets" {
  description = "Private subnets with a way to Secrets Manager and, by an address that Wise knows, to Wise"
  type        = list(string)
}

variable "security_groups" {
  description = "Let out TCP 443"
  type        = list(string)
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "rotate" {
  statement {
    actions = [
      "secretsmanager:DescribeSecret",
      "secretsmanager:GetSecretValue",
      "secretsmanager:PutSecretValue",
      "secretsmanager:UpdateSecretVersionStage",
    ]
    resources = [var.secret_arn]
  }
}

resource "aws_iam_role" "rotate" {
  name               = "rotate-wise-credentials"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "rotate" {
  name   = "rotate-wise-credentials"
  role   = aws_iam_role.rotate.name
  policy = data.aws_iam_policy_document.rotate.json
}

# Writes its log and joins the subnets.
resource "aws_iam_role_policy_attachment" "run" {
  role       = aws_iam_role.rotate.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

resource "aws_cloudwatch_log_group" "rotate" {
  name              = "/aws/lambda/rotate-wise-credentials"
  retention_in_days = 400
}

resource "aws_lambda_function" "rotate" {
  function_name    = "rotate-wise-credentials"
  role             = aws_iam_role.rotate.arn
  handler          = "wise_creds_aws.rotation.handler"
  runtime          = "python3.13"
  filename         = var.package
  source_code_hash = filebase64sha256(var.package)
  memory_size      = 256
  timeout          = 60

  environment {
    variables = {
      WISE_CREDS_CONFIG = "/var/task/wise-creds.toml"
    }
  }

  vpc_config {
    subnet_ids         = var.subnets
    security_group_ids = var.security_groups
  }

  depends_on = [aws_cloudwatch_log_group.rotate, aws_iam_role_policy_attachment.run]
}

resource "aws_lambda_permission" "rotate" {
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.rotate.function_name
  principal      = "secretsmanager.amazonaws.com"
  source_account = split(":", var.secret_arn)[4]
}

# The schedule is a reminder: a rotation that begins while nothing is staged fails, and the alarm below tells.
resource "aws_secretsmanager_secret_rotation" "wise" {
  secret_id           = var.secret_arn
  rotation_lambda_arn = aws_lambda_function.rotate.arn
  rotate_immediately  = false # tries the function with the present secret instead

  rotation_rules {
    automatically_after_days = 330 # a certificate of Wise's lives for a year
  }

  depends_on = [aws_lambda_permission.rotate]
}

resource "aws_cloudwatch_metric_alarm" "rotate" {
  alarm_name          = "rotate-wise-credentials"
  alarm_description   = "A rotation of the Wise credentials failed; the function's log says why"
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = aws_lambda_function.rotate.function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic]
}
