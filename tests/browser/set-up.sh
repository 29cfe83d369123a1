#!/usr/bin/env bash
# What the tests in a browser need beside Python: Chromium, and axe-core (MPL-2.0), which is not part of this project.
set -euo pipefail
folder=$1
mkdir -p "$folder"

if ! command -v chromium chromium-browser > /dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing Chromium …"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq -y install --no-install-recommends chromium fonts-dejavu-core procps > /dev/null
  else
    echo "there is no Chromium; install it (Debian: apt-get install chromium), and run this again" >&2
    exit 1
  fi
fi

if [ ! -s "$folder/axe.min.js" ]; then
  if ! command -v npm > /dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
      apt-get -qq -y install --no-install-recommends npm > /dev/null
    else
      echo "there is no npm to fetch axe-core with; install it (Debian: apt-get install npm), and run this again" >&2
      exit 1
    fi
  fi
  package=$(mktemp -d)
  (cd "$package" && npm pack --silent axe-core@4 > /dev/null && tar xzf axe-core-*.tgz)
  mv "$package/package/axe.min.js" "$folder/axe.min.js"
  rm -rf "$package"
fi
