#!/bin/bash
# apptainer.sh ARGUMENTS: Debian's Apptainer in a private root folder, for a machine that has none of its own.
#
#   APPTAINER_ROOT    the folder that mmdebstrap filled (tests/containers/private.py)
#   APPTAINER_BINDS   folders, separated by colons, that it sees at their own paths
#
# Must be started by root. A user namespace with the identity map gives the full set of capabilities that Apptainer
# asks for and that a container or a restricted root lacks; Apptainer refuses a plain chroot, hence pivot_root.
set -u
inside='
    until grep -q . /proc/self/uid_map; do sleep 0.01; done
    set -e
    root=$APPTAINER_ROOT
    mount --rbind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    for file in resolv.conf hosts; do touch "$root/etc/$file"; mount --bind "/etc/$file" "$root/etc/$file"; done
    IFS=:
    for folder in ${APPTAINER_BINDS-}; do mkdir -p "$root$folder"; mount --rbind "$folder" "$root$folder"; done
    mkdir -p "$root/host"
    cd "$root"
    pivot_root . host
    umount -l /host
    cd "$CALLED_FROM" 2>/dev/null || cd /
    exec "$@"
'
export CALLED_FROM=$PWD HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
unshare --user --mount --pid --fork --kill-child --propagation private sh -c "$inside" sh apptainer "$@" <&0 &
child=$!
until [ "$(readlink /proc/$child/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
echo "0 0 65536" > /proc/$child/uid_map
echo "0 0 65536" > /proc/$child/gid_map
trap 'kill -TERM $child' INT TERM
wait $child
