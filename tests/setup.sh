#!/usr/bin/env bash
# Installs the services that tests talk to where it may, and starts a Docker engine if none answers.
# With names of packages: installs just these.
set -euo pipefail

declare -A package=(
  [redis-server]=redis-server [haproxy]=haproxy [dockerd]=docker.io [chromium]=chromium
  [chromedriver]=chromium-driver [sshd]=openssh-server [docker-registry]=docker-registry
  [git]=git [tmux]=tmux [ssh]=openssh-client [initdb]=postgresql [systemd-analyze]=systemd [busybox]=busybox-static
)

export PATH="$PATH:/usr/sbin:/sbin"

has() {
  case $1 in
    initdb) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ;;
    busybox) [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

install_packages() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "this needs what is not installed here: apt-get install $*" >&2
    exit 1
  fi
  echo "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  # tests start services themselves, each with its own data
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if [ $# -gt 0 ]; then
  install_packages "$@"
  exit
fi

missing=()
for program in "${!package[@]}"; do
  has "$program" || missing+=("${package[$program]}")
done
if [ ${#missing[@]} -gt 0 ]; then
  install_packages "${missing[@]}"
fi

engine_answers() { docker version >/dev/null 2>&1 || curl -s --unix-socket /var/run/docker.sock http://d/_ping >/dev/null 2>&1; }

# whether a process of that name lives; one that is dead but not yet reaped does not
lives() {
  local comm
  for comm in $(grep -lsx "$1" /proc/[0-9]*/comm); do
    if grep -qsE '^State:[[:space:]]+[^ZX]' "${comm%comm}status"; then return 0; fi
  done
  return 1
}

if ! engine_answers; then
  if [ "$(id -u)" != 0 ]; then
    echo "tests need a Docker engine that this user may talk to (DOCKER_HOST or the group docker)" >&2
    exit 1
  fi
  echo "starting a Docker engine"
  mkdir -p build
  # an engine that was killed leaves these, and their numbers may be another process's by now
  lives dockerd || rm -f /var/run/docker.pid
  lives containerd || rm -f /var/run/docker/containerd/containerd.pid
  setsid dockerd >build/dockerd.log 2>&1 </dev/null &
  for _ in $(seq 120); do
    if engine_answers; then break; fi
    sleep 0.5
  done
  engine_answers || { echo "the Docker engine did not start; see build/dockerd.log" >&2; tail -5 build/dockerd.log >&2; exit 1; }
fi
