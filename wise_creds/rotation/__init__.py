"""
The operator's side of a rotation: stage new values beside the current ones, prove them, make them current.

```python
from wise_creds import Secret, rotation

rotation.stage("production", client_secret=Secret(new))
rotation.verify("production")
rotation.promote("production")
```
"""

from wise_creds.rotation._request import CertificateRequest, request_certificate
from wise_creds.rotation._status import RotationStatus
from wise_creds.rotation._steps import discard, promote, rollback, stage, status, verify

__all__ = [
    "CertificateRequest",
    "RotationStatus",
    "discard",
    "promote",
    "request_certificate",
    "rollback",
    "stage",
    "status",
    "verify",
]
