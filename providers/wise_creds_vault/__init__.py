"""The provider `vault`: one secret of a KV engine of HashiCorp Vault or OpenBao."""

from wise_creds_vault._provider import VaultProvider

__all__ = ["VaultProvider"]
