#!/usr/bin/env bash
# The packages of deploy/packages: what lintian and rpm say of them, and the Debian package installed, upgraded, removed and
# purged inside a booted Debian.
#
# usage: tests/deploy/packages.sh BINARY
# Installs cargo-deb and cargo-generate-rpm in the target folder where they are missing. Exit 77: no container boots here.
set -euo pipefail
binary=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=$(dirname "$(dirname "$binary")")/packaging
export PATH="$PATH:$tools/bin"
for tool in cargo-deb cargo-generate-rpm; do
    command -v "$tool" >/dev/null || cargo install --locked --quiet --root "$tools" "$tool"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

deploy/packages/build --fast "$binary" >/dev/null
first=$(echo target/package/*.deb)

# A name without anybody behind it, and a program that calls systemctl by itself: both are so on purpose.
allowed='maintainer-script-calls-systemctl|description-synopsis-starts-with-article|bogus-mail-host|initial-upload|root privileges'
if command -v lintian >/dev/null; then
    said=$(lintian --allow-root "$first" 2>&1 | grep -vE "$allowed") || true
    [ -z "$said" ] || { echo "lintian: $said" >&2; exit 1; }
else
    echo "note: there is no lintian; it has not seen the package" >&2
fi
if command -v rpm >/dev/null; then
    # The same files, but for what each distribution keeps elsewhere.
    deb_files=$(dpkg-deb --contents "$first" | awk '$1 !~ /^d/ { print substr($6, 2) }')
    rpm_files=$(rpm --query --list --package target/package/*.rpm 2>/dev/null)
    differ() { sed 's|^/lib/|/usr/lib/|; s|zsh/[a-z-]*/|zsh/|' | grep -vE '/(licenses|copyright|changelog)' | sort; }
    diff <(differ <<<"$deb_files") <(differ <<<"$rpm_files" | grep -v 'changelog.Debian')
    [ "$(rpm --query --configfiles --package target/package/*.rpm 2>/dev/null)" = /etc/tidegate/tidegate.toml ]
else
    echo "note: there is no rpm; it has not seen the package" >&2
fi
if command -v rpmlint >/dev/null; then
    said=$(rpmlint --config tests/deploy/rpmlint.toml target/package/*.rpm 2>&1) || true
    grep -q " 0 errors, 0 warnings" <<<"$said" || { echo "rpmlint: $said" >&2; exit 1; }
else
    echo "note: there is no rpmlint; it has not seen the package" >&2
fi

# The next version, with another configuration.
dpkg-deb --raw-extract "$first" "$work/next"
sed -i 's/^Version: .*/Version: 0.1.0-2/' "$work/next/DEBIAN/control"
echo "# a line of the next version" >>"$work/next/etc/tidegate/tidegate.toml"
mkdir "$work/share"
cp "$first" "$work/share/first.deb"
dpkg-deb --root-owner-group -Znone --build "$work/next" "$work/share/next.deb" >/dev/null
INSTALL_INSIDE=tests/deploy/packages-inside INSTALL_SHARE="$work/share" tests/install/run "$binary"
echo "packages: passed"
