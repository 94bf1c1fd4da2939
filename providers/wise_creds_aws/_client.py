"""boto3 clients that take nothing from the environment but the caller's identity, and print nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

from wise_creds_aws._options import AwsOptions

_CONNECT, _READ = 3.0, 5.0  # seconds at most, for one attempt; less if the deadline is near


def session(options: AwsOptions, left: float, **identity: str | None) -> Any:  # noqa: ANN401
    """
    Make a `boto3.Session` whose clients are all hardened, those too by which botocore gets an identity (web identity, SSO).

    All sessions share what botocore reads from its own files, which takes most of the time.
    """
    import boto3
    from botocore.session import Session

    core = Session()
    core.register_component("data_loader", _loader())
    create = core.create_client

    def hardened(service: str, *arguments: Any, **given: Any) -> Any:  # noqa: ANN401
        ours, theirs = _config(options, left), given.get("config")
        given |= {"config": ours if theirs is None else theirs.merge(ours), "verify": _trust(options)}
        if service == "sts" and given.get("endpoint_url") is None:
            given["endpoint_url"] = options.sts_endpoint_url
        client = create(service, *arguments, **given)
        _quiet(client)
        return client

    core.create_client = hardened  # type: ignore[assignment]
    return boto3.Session(botocore_session=core, **identity)


@cache
def _loader() -> Any:  # noqa: ANN401
    from botocore.loaders import create_loader

    return create_loader()


def make(session: Any, service: str, options: AwsOptions, *, region: str | None, left: float) -> Any:  # noqa: ANN401
    """
    Make a client.

    Args:
        session: a `boto3.Session`.
        service: `"secretsmanager"` or `"sts"`.
        options: the source's.
        region: where.
        left: seconds until the deadline.
    """
    endpoint = options.endpoint_url
    if service == "sts":
        endpoint = options.sts_endpoint_url or endpoint
    client = session.client(
        service, region_name=region, endpoint_url=endpoint, config=_config(options, left), verify=_trust(options)
    )
    _quiet(client)
    return client


def _config(options: AwsOptions, left: float) -> Any:  # noqa: ANN401
    from botocore.config import Config

    return Config(  # type: ignore[call-arg]  # the stubs do not know ignore_configured_endpoint_urls
        connect_timeout=min(_CONNECT, max(0.1, left / 2)),
        read_timeout=min(_READ, max(0.1, left)),
        retries={"mode": "standard", "total_max_attempts": 3},
        proxies={"http": options.proxy, "https": options.proxy} if options.proxy else {},
        ignore_configured_endpoint_urls=True,
        use_fips_endpoint=options.fips,
        use_dualstack_endpoint=options.dualstack,
        user_agent_extra="wise-creds",
    )


def _trust(options: AwsOptions) -> str | bool:
    return str(options.ca_bundle) if options.ca_bundle else True


def _quiet(client: Any) -> None:  # noqa: ANN401
    """
    Switch off what would write the traffic down: botocore's TLS key log and http.client's debug output.

    Both are on if the environment or the application says so, and neither can be reached by public names; tests hold
    that this works with the pinned botocore.
    """
    http = client._endpoint.http_session  # noqa: SLF001

    def context() -> Any:  # noqa: ANN401
        made = type(http)._get_ssl_context(http)  # noqa: SLF001
        made.keylog_filename = None
        return made

    http._get_ssl_context = context  # noqa: SLF001  for the managers of proxies, which are made later
    http._manager.connection_pool_kw["ssl_context"].keylog_filename = None  # noqa: SLF001
    pools = {}
    for scheme, pool in http._pool_classes_by_scheme.items():  # noqa: SLF001
        connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"debuglevel": 0})
        pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": connection})
    http._pool_classes_by_scheme = http._manager.pool_classes_by_scheme = pools  # noqa: SLF001
