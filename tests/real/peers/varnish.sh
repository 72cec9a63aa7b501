#!/usr/bin/env bash
[[ $1 == version ]] && exec dpkg-query -W -f '${Version}' varnish
# Debian's Varnish as a cache on 127.0.0.1:$2 before the origin at 127.0.0.1:$1; its files in $3. No lifetimes and no
# grace of its own, as the suite's author configures it.
exec varnishd -F -n "$3/varnish" -j none -a "127.0.0.1:$2" -b "127.0.0.1:$1" -s malloc,64m \
    -p default_ttl=0 -p default_grace=0 -p default_keep=3600
