"""The provider `aws`: one secret of AWS Secrets Manager."""

from wise_creds_aws._provider import AwsProvider

__all__ = ["AwsProvider"]
