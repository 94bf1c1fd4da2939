"""What every recorded answer of a real server becomes: a success, or one code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import leaks

from wise_creds_vault._errors import Answer, explained
from wise_creds_vault._wire import step_of

RECORDED: dict[tuple[str, str], dict[str, Any]] = {
    (path.stem, exchange["name"]): exchange
    for path in sorted((Path(__file__).parent / "vault_wire").glob("*.json"))
    for exchange in json.loads(path.read_text())
}
CANARY = "canary-server-text"
# The rest are successes.
REFUSED = {
    ("kv2", "absent: never written"): "WC301",
    ("kv2", "absent: metadata"): "WC301",
    ("kv2", "write with cas 0 though it exists"): "WC702",
    ("kv2", "write with a stale cas"): "WC702",
    ("kv2", "read a version that was never written"): "WC301",
    ("kv2", "read a version that is not a number"): "WC335",
    ("kv2", "metadata denied"): "WC302",
    ("kv2", "read the soft-deleted current version"): "WC337",
    ("kv2", "read the destroyed version"): "WC338",
    ("kv2", "read after metadata delete"): "WC301",
    ("kv2", "cas_required: write without cas"): "WC702",
    ("kv2", "cas_required: metadata exists, no version yet: read"): "WC301",
    ("kv2", "delete_version_after: read when past"): "WC337",
    ("kv2", "max_versions: read one that fell out"): "WC301",
    ("kv2", "write without data"): "WC335",
    ("kv2", "v2 mount read as v1 (no data/ in the path)"): "WC340",
    ("kv2", "v2 mount read as v1, token without a policy for it"): "WC302",
    ("kv2", "data/ written twice"): "WC301",
    ("kv2", "wrong mount"): "WC339",
    ("kv2", "wrong mount, token without a policy for it"): "WC302",
    ("kv2", "no policy for this path"): "WC302",
    ("kv2", "write without the right"): "WC302",
    ("kv2", "no token"): "WC302",
    ("kv2", "unknown token"): "WC302",
    ("kv2", "mount preflight: wrong mount"): "WC302",
    ("kv2", "body that is not JSON"): "WC335",
    ("kv2", "wrong method"): "WC335",
    ("kv1", "absent"): "WC301",
    ("kv1", "v1 mount read as v2 (data/ in the path)"): "WC301",
    ("kv1", "v1 mount read as v2, token without a policy for it"): "WC302",
    ("auth", "unknown role id"): "WC325",
    ("auth", "unknown secret id"): "WC325",
    ("auth", "no secret id"): "WC325",
    ("auth", "no role id"): "WC325",
    ("auth", "secret id for one use: second login"): "WC325",
    ("auth", "secret id bound to another network"): "WC325",
    ("auth", "auth mount that does not exist"): "WC325",
    ("auth", "unwrap again"): "WC342",
    ("auth", "look a used wrapping token up"): "WC342",
    ("auth", "userpass wrong password"): "WC325",
    ("auth", "userpass unknown user"): "WC325",
    ("auth", "jwt expired"): "WC325",
    ("auth", "jwt wrong audience"): "WC325",
    ("auth", "jwt unknown role"): "WC325",
    ("auth", "jwt garbage"): "WC325",
    ("auth", "kubernetes service account not bound to the role"): "WC325",
    ("auth", "kubernetes unknown role"): "WC325",
    ("auth", "kubernetes token refused by the API server"): "WC325",
    ("auth", "after revoke: lookup-self"): "WC343",
    ("auth", "after revoke: read"): "WC302",
    ("auth", "batch token: renew-self"): "WC335",
    ("auth", "batch token: revoke-self"): "WC335",
    ("auth", "non-renewable token: renew-self"): "WC335",
    ("auth", "token for one use: second read"): "WC302",
    ("auth", "expired token: read"): "WC302",
    ("cert", "cert login, unknown role"): "WC325",
    ("cert", "cert login with a stranger's certificate"): "WC325",
    ("cert", "cert login without a certificate"): "WC325",
    ("namespaces", "namespace that does not exist"): "WC341",
    ("namespaces", "login without the header: the mount is not there"): "WC341",
    ("namespaces", "a namespace's token in the root namespace"): "WC302",
    ("namespaces", "a root token's reader policy in a namespace"): "WC302",
    ("states", "not initialised: health"): "WC303",
    ("states", "not initialised: read"): "WC344",
    ("states", "not initialised: login"): "WC344",
    ("states", "sealed: health"): "WC303",
    ("states", "sealed: read"): "WC344",
    ("states", "sealed: login"): "WC344",
    ("states", "read after the seal"): "WC344",
    ("standby", "standby: health"): "WC327",
    ("standby", "standby: login with forwarding switched off"): "WC346",
    ("limits", "rate limit hit"): "WC327",
    ("plain-to-tls", "plain http to a TLS listener"): "WC336",
}


def test_the_table_names_recorded_exchanges_only() -> None:
    """A name that is spelled wrongly here would let its exchange pass as a success."""
    assert (len(RECORDED), set(REFUSED) - set(RECORDED)) == (142, set())


@pytest.mark.parametrize("name", RECORDED, ids=lambda name: f"{name[0]}: {name[1]}")
def test_every_recorded_answer_has_its_code_and_shows_no_text_of_the_server(name: tuple[str, str]) -> None:
    """Status and shape decide; Vault's words never come through."""
    request, response = RECORDED[name]["request"], RECORDED[name]["response"]
    step = step_of(request["method"], request["path"])

    def becomes(body: Any) -> Any:
        return explained(Answer(response.get("status", 200), body), step=step, place="place", login="login")

    problem, body = becomes(response.get("json")), response.get("json")
    assert (problem.code if problem else None) == REFUSED.get(name)
    if body and body.get("errors"):
        marked = {"errors": [f"{text} {CANARY}" for text in body["errors"]]}
        assert (leaks({"text": CANARY}, marked), leaks({"text": CANARY}, becomes(marked))) == (["text"], [])


def test_a_standby_that_redirects_is_not_retried_against_another_host() -> None:
    """The address in `Location` is nowhere in the error."""
    response = RECORDED["standby", "standby: login with forwarding switched off"]["response"]
    problem = explained(Answer(response["status"]), step="login", place="place", login="login")
    assert leaks({"location": response["headers"]["location"]}, problem) == []


@pytest.mark.parametrize("said", [["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"],
                                  ["permission denied", "invalid token"]])  # fmt: skip
def test_the_other_server_s_words_for_a_bad_token_are_understood(said: list[str]) -> None:
    """HashiCorp's names both; not recorded, from its documentation."""
    problem = explained(Answer(403, {"errors": said}), step="token", place="place", login="login")
    assert problem is not None
    assert problem.code == "WC343"
