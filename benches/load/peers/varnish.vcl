# Varnish on one pool of threads; its parameters are in peer.rs. It speaks no TLS by itself, so it has no TLS rows.
# https://varnish-cache.org/docs/7.1/reference/varnishd.html

vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "{{origin_port}}";
}

sub vcl_recv {
    # What may not be cached is passed at once: no lookup, no waiting list, no object that says hit-for-miss.
    if (req.url ~ "^/hit") {
        return (hash);
    }
    return (pass);
}
