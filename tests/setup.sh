#!/usr/bin/env bash
# Installs the services that tests talk to where it may, and starts a Docker engine if none answers.
set -euo pipefail

declare -A package=(
  [redis-server]=redis-server [haproxy]=haproxy [dockerd]=docker.io [chromium]=chromium
  [chromedriver]=chromium-driver [sshd]=openssh-server [docker-registry]=docker-registry
  [git]=git [tmux]=tmux [ssh]=openssh-client [initdb]=postgresql [busybox]=busybox-static
)

export PATH="$PATH:/usr/sbin:/sbin"

has() {
  case $1 in
    initdb) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ;;
    busybox) [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for program in "${!package[@]}"; do
  has "$program" || missing+=("${package[$program]}")
done

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests need what is not installed here: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # services are started by the tests themselves, each with its own data
  printf '#!/bin/sh\nexit 101\n' > /tmp/ciserver-policy-rc.d
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    install -m 755 /tmp/ciserver-policy-rc.d /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

engine_answers() { docker version >/dev/null 2>&1 || curl -s --unix-socket /var/run/docker.sock http://d/_ping >/dev/null 2>&1; }

if ! engine_answers; then
  if [ "$(id -u)" != 0 ]; then
    echo "tests need a Docker engine that this user may talk to (DOCKER_HOST or the group docker)" >&2
    exit 1
  fi
  echo "starting a Docker engine"
  mkdir -p build
  setsid dockerd >build/dockerd.log 2>&1 </dev/null &
  for _ in $(seq 120); do
    if engine_answers; then break; fi
    sleep 0.5
  done
  engine_answers || { echo "the Docker engine did not start; see build/dockerd.log" >&2; tail -5 build/dockerd.log >&2; exit 1; }
fi
