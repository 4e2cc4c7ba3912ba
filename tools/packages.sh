#!/bin/sh
# Installs Debian packages with apt, when that is allowed; otherwise prints the command that does. Called by `make run`,
# `make test` and `make bench` with the packages that are missing. Exit code 0: they are there now.
set -u

command="apt-get install -y --no-install-recommends $*"

give_up() {
    echo "$1; to install what is missing:"
    echo "    $command"
    exit 1
}

command -v apt-get >/dev/null || give_up "there is no apt here (these are Debian's names)"
if [ "$(id -u)" = 0 ]; then
    sudo=
else
    command="sudo $command"
    [ "${APT:-yes}" != no ] || give_up "not installing (APT=no)"
    command -v sudo >/dev/null || give_up "not root"
    sudo -n true 2>/dev/null || give_up "sudo asks for a password"
    sudo="sudo -n"
fi
[ "${APT:-yes}" != no ] || give_up "not installing (APT=no)"

log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

apt() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 "$@" </dev/null >>"$log" 2>&1
}

echo "installing with apt: $*"
# The lists may be empty or old: then the first attempt fails and the second one has new lists.
apt install -y --no-install-recommends "$@" && exit 0
apt update
apt install -y --no-install-recommends "$@" && exit 0
tail -n 5 "$log"
give_up "apt failed"
