#!/usr/bin/env bash
# Makes a local look-alike of python:3-slim from Debian packages, for machines that reach no image registry.
#
#   deploy/make-base-image.sh [TAG]        TAG is cospan-base:local by default
#
# Needs root, a Debian with its package lists, and Docker. Packages are unpacked and not configured, which takes
# seconds; this script does what Python in a container needs of their own scripts.
# EXTRA_PACKAGES="iptables" adds packages.
set -euo pipefail
tag=${1:-cospan-base:local}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root debs=$work/debs
mkdir -p "$debs/partial" "$root"
: > "$work/status"
packages=(base-files base-passwd bash coreutils dash debianutils findutils grep gzip hostname libc-bin login mawk netbase
          passwd sed tar usr-is-merged libstdc++6 tzdata python3 python3-venv)
read -ra extra <<< "${EXTRA_PACKAGES:-}"
download() {
  apt-get -qq -y -o Dir::State::status="$work/status" -o Dir::Cache::archives="$debs/" \
    -o APT::Install-Recommends=false -o Debug::NoLocking=true \
    --download-only install "${packages[@]}" ${extra[@]+"${extra[@]}"} > "$work/apt.log" 2>&1
}
download || { apt-get -qq update && download; } || { cat "$work/apt.log" >&2; exit 1; }

for folder in bin sbin lib lib64; do mkdir -p "$root/usr/$folder"; ln -s "usr/$folder" "$root/$folder"; done
for deb in "$debs"/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*'
done
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
sed 's/^\([^:]*\):.*/\1:*:19000:0:99999:7:::/' "$root/etc/passwd" > "$root/etc/shadow"
sed 's/^\([^:]*\):.*/\1:*::/' "$root/etc/group" > "$root/etc/gshadow"
chmod 640 "$root/etc/shadow" "$root/etc/gshadow"
ln -sf dash "$root/usr/bin/sh"
ln -sf mawk "$root/usr/bin/awk"
ln -sf which.debianutils "$root/usr/bin/which"
ln -sf python3 "$root/usr/bin/python"
if [ -e "$root/usr/sbin/iptables-nft" ]; then ln -sf iptables-nft "$root/usr/sbin/iptables"; fi
# The certificates that this machine trusts: pip in the build goes through the same proxies.
mkdir -p "$root/etc/ssl/certs" "$root/usr/lib/ssl"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
ln -sfn /etc/ssl/certs "$root/usr/lib/ssl/certs"
ln -sfn /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
cp "$root/usr/share/libc-bin/nsswitch.conf" "$root/etc/nsswitch.conf" 2>/dev/null ||
  printf 'passwd: files\ngroup: files\nhosts: files dns\n' > "$root/etc/nsswitch.conf"
mkdir -p "$root/var/lib/dpkg/info"
: > "$root/var/lib/dpkg/status"
ldconfig -r "$root"
find "$root" -name __pycache__ -type d -prune -exec rm -rf {} +
tar -C "$root" --numeric-owner -c . | docker import \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  --change 'ENV LANG=C.UTF-8' \
  --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
  --change 'CMD ["python3"]' \
  --change 'LABEL org.opencontainers.image.title="local base with Debian python3"' \
  ${LABEL:+--change "LABEL $LABEL"} - "$tag" > /dev/null
docker image inspect -f '{{index .RepoTags 0}} {{.Size}}' "$tag" | awk '{printf "%s  %.0f MB\n", $1, $2 / 1e6}'
