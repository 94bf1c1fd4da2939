"""The provider `files`: secrets from a mounted directory, or from one JSON or TOML file."""

from wise_creds_files._staging import FilesProvider

__all__ = ["FilesProvider"]
