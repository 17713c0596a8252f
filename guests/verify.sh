#!/bin/sh
# Rebuilds the guests and compares them with those in bin/.
# 0: same; 1: different; 77: cannot tell, because the compiler is missing or another one.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C

for tool in gcc make sha256sum; do
    if ! command -v "$tool" > /dev/null; then
        echo "cannot verify: $tool is not installed"
        exit 77
    fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! sh toolchain.sh gcc > "$work/TOOLCHAIN" || ! cmp -s "$work/TOOLCHAIN" bin/TOOLCHAIN; then
    echo "cannot verify: the toolchain is not the one in bin/TOOLCHAIN: $(head -n 1 "$work/TOOLCHAIN")"
    exit 77
fi

if ! make -s OUT="$work/build" > "$work/log" 2>&1; then
    cat "$work/log"
    echo "different: the guests do not build"
    exit 1
fi

status=0
(cd bin && sha256sum --quiet -c SHA256SUMS) || status=1
for name in $(ls bin "$work/build" | grep -e '\.elf$' -e '^linux-[a-z]*$' | sort -u); do
    cmp "bin/$name" "$work/build/$name" || status=1
done
if [ "$status" -eq 0 ]; then echo same; else echo different; fi
exit "$status"
