"""What envoyproxy/ratelimit's variables of an xDS server stand for."""

from extauth.compat.given import Given


def xds(given: Given) -> None:
    """Put the settings of rules from an xDS server."""
    url, tls = "CONFIG_GRPC_XDS_SERVER_URL", "CONFIG_GRPC_XDS_SERVER_USE_TLS"
    address = given.read(url).removeprefix("dns:///").removeprefix("passthrough:///")
    given.put("EXTAUTH_CONFIG", f"{'xdss' if given.read(tls) else 'xds'}://{address}", url, tls)
    for setting, name in (
        ("EXTAUTH_XDS_NODE_ID", "CONFIG_GRPC_XDS_NODE_ID"),
        ("EXTAUTH_START_WITHOUT_RULES", "FORCE_START_WITHOUT_INITIAL_CONFIG"),
    ):
        given.put(setting, given.read(name), name)
    metadata = "CONFIG_GRPC_XDS_NODE_METADATA"
    if pairs := [pair for pair in given.read(metadata).split(",") if "=" in pair.strip("= ")]:  # it takes no others
        given.put("EXTAUTH_XDS_NODE_METADATA", ",".join(pairs), metadata)
    headers = "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS"
    if found := given.read(headers):
        given.put("EXTAUTH_XDS_HEADERS", ",".join(f"{name}:{value}" for name, value in found.items()), headers)
    most = "XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES"
    if given.is_set(most) and given.read(most) != 0:
        given.put("EXTAUTH_XDS_MAX_MESSAGE_BYTES", given.read(most), most)
    if not given.read(tls):
        given.leave(f"{tls} is not true", "CONFIG_GRPC_XDS_CLIENT_TLS_", "CONFIG_GRPC_XDS_SERVER_TLS_")
        return
    given.put_if_set("EXTAUTH_XDS_TLS_CERT", "CONFIG_GRPC_XDS_CLIENT_TLS_CERT")
    given.put_if_set("EXTAUTH_XDS_TLS_KEY", "CONFIG_GRPC_XDS_CLIENT_TLS_KEY")
    given.put_if_set("EXTAUTH_XDS_TLS_CA", "CONFIG_GRPC_XDS_SERVER_TLS_CACERT")
    given.put_if_set("EXTAUTH_XDS_TLS_SAN", "CONFIG_GRPC_XDS_SERVER_TLS_SAN")
