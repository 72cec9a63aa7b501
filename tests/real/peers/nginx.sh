#!/usr/bin/env bash
[[ $1 == version ]] && exec dpkg-query -W -f '${Version}' nginx
# Debian's nginx as a cache on 127.0.0.1:$2 before the origin at 127.0.0.1:$1; its files in $3.
cat >"$3/nginx.conf" <<CONF
daemon off;
user root;
pid $3/nginx.pid;
error_log $3/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path $3/body;
    proxy_temp_path $3/temp;
    proxy_cache_path $3/cache levels=1:2 keys_zone=suite:8m inactive=600m use_temp_path=off;
    server {
        listen 127.0.0.1:$2;
        location / {
            proxy_pass http://127.0.0.1:$1;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache suite;
            proxy_cache_revalidate on;
            proxy_cache_use_stale error timeout invalid_header http_500 http_502 http_503 http_504;
            proxy_next_upstream off;
        }
    }
}
CONF
exec nginx -c "$3/nginx.conf" -p "$3"
