# Run by `cargo xtask test --fresh` as the first process of its own mount and process namespaces.
# $1: the new root. $2: where it gets the toolchain from (RUSTUP_HOME). $3: cargo's folder (CARGO_HOME). $4: certificates.
# Then the command to run inside. Every mount ends with the namespace: nothing is left on the machine.
set -eu
root=$1 rustup=$2 cargo=$3 certificates=$4
shift 4

mount --bind "$root" "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root$rustup" "$root$cargo" "$root$certificates" "$root/.old"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
# At their own paths: toolchains may be links.
mount --bind "$rustup" "$root$rustup"
# The toolchain's programs and the download cache; what cargo installs goes to .gatehouse/tools anyway.
mount --bind "$cargo" "$root$cargo"
mount --bind "$certificates" "$root$certificates"

# Not chroot: there a sandbox could neither pivot nor make a user namespace.
cd "$root"
pivot_root . .old
umount -l /.old
rmdir /.old
cd /src/gatehouse
exec "$@"
