#!/usr/bin/env bash
[[ $1 == version ]] && exec dpkg-query -W -f '${Version}' apache2
# Debian's Apache httpd as a cache on 127.0.0.1:$2 before the origin at 127.0.0.1:$1; its files in $3.
mkdir -p "$3/cache"
chown -R www-data "$3"
chmod 755 "$3"
cat >"$3/apache.conf" <<CONF
ServerName 127.0.0.1
ServerRoot $3
PidFile $3/apache.pid
DefaultRuntimeDir $3
ErrorLog $3/error.log
User www-data
Group www-data
Listen 127.0.0.1:$2
$(for module in mpm_event authz_core proxy proxy_http cache cache_disk headers; do
    echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
done)
ProxyPass / http://127.0.0.1:$1/ retry=0 disablereuse=on
ProxyPassReverse / http://127.0.0.1:$1/
CacheRoot $3/cache
CacheEnable disk /
CacheQuickHandler on
CacheStaleOnError on
CONF
exec apache2 -DFOREGROUND -f "$3/apache.conf"
