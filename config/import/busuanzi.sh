#!/bin/sh
# The counters of a self-hosted busuanzi as rows for import. Its Redis knows only digests of the pages, so it needs their
# paths, one a line as they stand in the URL, from your sitemap:
#
#   curl -s https://HOST/sitemap.xml | grep -o '<loc>[^<]*' | sed 's,<loc>https*://[^/]*,,' > paths
#   sh busuanzi.sh HOST redis://127.0.0.1:6379/0 < paths | footfall import - --site KEY
set -eu
host=$1 url=$2
digest() { printf %s "$1" | md5sum | cut -c -32; }
ask() { redis-cli -u "$url" "$@" < /dev/null; }
site=$(digest "$host")
printf ',views,all,all,,%s\n' "$(ask GET "bsz:site_pv:$site")"
while read -r path; do
    # Some versions have the host in front.
    for page in "$path" "$host&$path"; do
        views=$(ask ZSCORE "bsz:page_pv:$site" "$(digest "$page")")
        if [ -n "$views" ]; then printf ',views,all,all,"%s",%s\n' "$path" "$views"; fi
    done
done
