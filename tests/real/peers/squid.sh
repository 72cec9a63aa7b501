#!/usr/bin/env bash
[[ $1 == version ]] && exec dpkg-query -W -f '${Version}' squid
# Debian's Squid as a cache on 127.0.0.1:$2 before the origin at 127.0.0.1:$1; its files in $3.
chown proxy "$3"
chmod 755 "$3"
cat >"$3/squid.conf" <<CONF
http_port 127.0.0.1:$2 accel defaultsite=127.0.0.1 no-vhost
cache_peer 127.0.0.1 parent $1 0 no-query no-digest originserver default name=origin
http_access allow all
cache_mem 64 MB
access_log none
cache_log $3/cache.log
pid_filename $3/squid.pid
coredump_dir $3
icp_port 0
memory_cache_shared off
pinger_enable off
shutdown_lifetime 1 second
connect_retries 0
CONF
exec squid -N -d 1 -f "$3/squid.conf"
