#!/bin/sh
# Runs every guest on the floor and compares how it ends with docs/guest-abi.md, sections 6 to 8.
# 0: as it should be; 1: not; 77: there is no usable /dev/kvm.
# FLOOR names a floor that is already built, for machines without a compiler. With EMULATED_CPU set, the exceptions that
# QEMU's TCG does not raise are left out (#XM and #AC).
set -u
cd "$(dirname "$0")"
guests=../../guests/bin
floor=${FLOOR:-build/floor}
failures=0

if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
    echo "cannot check: no access to /dev/kvm"
    exit 77
fi
[ -n "${FLOOR:-}" ] || make -s build/floor || exit 1

fail() {
    failures=$((failures + 1))
    printf 'FAIL %s\n     expected %s\n     got      %s\n' "$1" "$2" "$3"
}

expect() { # name, expected, actual
    if [ "$2" = "$3" ]; then printf 'ok   %s\n' "$1"; else fail "$1" "$2" "$3"; fi
}

# How `crash KIND [N]` ends: exit code, stop code and, for an exception, its vector.
ends() { # expected end, floor's options, kind and N
    end=$(timeout 20 $floor run $2 $guests/crash.elf $3 2>&1 < /dev/null | tail -n 1 | sed 's/ rip=.*//')
    expect "crash $3" "$1" "$end"
}

ends 'exit_code=none stop_code=0x00007F02 fault vector=0'  '' div0
ends 'exit_code=none stop_code=0x00007F03 fault vector=6'  '' ud
ends 'exit_code=none stop_code=0x000E7F04 fault vector=14' '' read-unmapped
ends 'exit_code=none stop_code=0x000E7F04 fault vector=14' '' write-unmapped
ends 'exit_code=none stop_code=0x000D7F07 fault vector=14' '' write-readonly
ends 'exit_code=none stop_code=0x000D7F07 fault vector=14' '' exec-data
ends 'exit_code=none stop_code=0x000C7F05 fault vector=14' '' stack
ends 'exit_code=none stop_code=0x000C7F04 fault vector=14' '' oom
ends 'exit_code=none stop_code=0x000C7F04 fault vector=14' '--memory-mb 5' oom
ends 'exit_code=none stop_code=0x000E7F05 fault vector=13' '' gp
ends 'exit_code=none stop_code=0x000E7F05 fault vector=13' '' noncanonical
ends 'exit_code=none stop_code=0x000D7F07 fault vector=14' '' read-ring0
ends 'exit_code=none stop_code=0x00007F02 fault vector=16' '' x87
if [ -z "${EMULATED_CPU:-}" ]; then
    ends 'exit_code=none stop_code=0x00007F02 fault vector=19' '' sse
    ends 'exit_code=none stop_code=0x00007F03 fault vector=17' '' misalign
fi
ends 'exit_code=none stop_code=0x00007F03 fault vector=3'  '' breakpoint
ends 'exit_code=none stop_code=0x00007F03 fault vector=1'  '' single-step
ends 'exit_code=none stop_code=0x00007F03 fault vector=6'  '--vcpus 3' secondary
ends 'exit_code=none stop_code=0x00057F01 fault none'      '' abort
ends 'exit_code=none stop_code=0x00167F01 fault none'      '' 'abort 22'
ends 'exit_code=1 stop_code=0x00008200 fault none'         '' exit
ends 'exit_code=-3 stop_code=0x00008200 fault none'        '' 'exit -3'
ends 'exit_code=42 stop_code=0x00008200 fault none'        '' 'return 42'
ends 'exit_code=none stop_code=none fault none'            '' vanish
ends 'exit_code=none stop_code=0x00007F03 fault vector=6'  '' syscall
ends 'exit_code=none stop_code=0x000E7F04 fault vector=14' '' jump-null
ends 'exit_code=64 stop_code=0x00008200 fault none'        '' nonsense

stop='--stop-after-ms 100 --grace-ms 200'
ends 'exit_code=none stop_code=0x006EFF01 fault vector=2'  "$stop" loop
ends 'exit_code=none stop_code=0x006EFF01 fault vector=2'  "$stop" ignore-stop
ends 'exit_code=none stop_code=0x00007F03 fault vector=6'  "$stop" crash-on-stop
ends 'exit_code=9 stop_code=0x00008200 fault none'         "$stop" 'exit-on-stop 9'

output=$(timeout 20 $floor run --vcpus 2 --memory-mb 48 --env A=b $guests/hello.elf 'two words' 2>&1 < /dev/null)
expect hello "Hello from a flat guest: 2 vCPU(s), 48 MiB
arg[0]=$guests/hello.elf
arg[1]=two words
env A=b
exit_code=0 stop_code=0x00008200 fault none" "$output"

for vcpus in 1 3; do
    output=$(timeout 20 $floor run --vcpus $vcpus $guests/contract.elf 2>&1 < /dev/null)
    expect "contract on $vcpus vCPU(s)" 'exit_code=0 stop_code=0x00008200 fault none' \
        "$(printf '%s\n' "$output" | grep '^FAILED\|^exit_code')"
    expect "formats" '[-12|  -12|-12  |-0012|7|18446744073709551615|abc|ABC|0000000000001234|text|   text|text   |te|c|%|0x10|4|005|   9]' \
        "$(printf '%s\n' "$output" | grep '^\[')"
done

output=$(printf 'tick\nmark a b\ntick\nshow\nwhat\nexit 5\n' \
    | timeout 20 $floor run $guests/counter.elf --period-ms 0 --random 2>&1 \
    | sed -E 's/^nonce=[0-9a-f]{16} tick=([0-9]+) gap_us=[0-9]+ gen=[0-9a-f]{16}$/tick \1/')
expect 'counter on request' "tick 1
tick 2
mark=a b
unknown: what
exit_code=5 stop_code=0x00008200 fault none" "$output"

output=$(printf 'watch\nwork\nwrite\nexit 5\n' \
    | timeout 20 $floor run $guests/counter.elf --period-ms 0 --ballast-mb 4 --work --busy 2>&1 | sed -E 's/=[0-9]+/=N/g')
expect 'counter measures' "watching_at=N tsc_khz=N
work=N ns=N
write_ns=N
exit_code=N stop_code=Nx00008200 fault none" "$output"

output=$(printf 'watch\nwatch\nexit 5\n' \
    | timeout 20 $floor run --vcpus 2 $guests/counter.elf --period-ms 0 --watch 2>&1 | sed -E 's/(watching_at|tsc_khz)=[0-9]+/\1=N/g')
expect 'counter watches' "watching_at=N tsc_khz=N
watching_at=N tsc_khz=N
exit_code=5 stop_code=0x00008200 fault none" "$output"

for mode in '' '--busy' '--busy --rate 20000 --quiet'; do
    end=$(timeout 20 $floor run --vcpus 2 $guests/counter.elf --period-ms 5 --ticks 10 --smp $mode 2>&1 < /dev/null | tail -n 1)
    expect "counter --ticks 10 $mode" 'exit_code=0 stop_code=0x00008200 fault none' "$end"
done

output=$(timeout 20 $floor run --stop-after-ms 100 $guests/counter.elf --period-ms 0 2>&1 < /dev/null)
expect 'counter, asked to stop' "stopping
exit_code=0 stop_code=0x00008200 fault none" "$output"

expect 'exit-roundtrip' 100 "$(timeout 20 $floor exit-roundtrip $guests/exits.elf 100 | grep -c '^[1-9][0-9]*$')"
expect 'boot' 5 "$(timeout 20 $floor boot $guests/hello.elf 64 5 | grep -c '^[1-9][0-9]*$')"
for mode in '' busy; do
    for kind in pause pause-guest; do
        expect "$kind $mode" 5 "$(timeout 20 $floor $kind $guests/counter.elf 64 163 5 $mode | grep -c '^[1-9][0-9]*$')"
    done
done
expect 'pause-rate' 5 "$(timeout 20 $floor pause-rate $guests/counter.elf 64 1000 5 | grep -c '^[1-9][0-9]*$')"
for mode in '' busy; do
    expect "stop-and-copy $mode" 5 "$(timeout 20 $floor stop-and-copy $guests/counter.elf 64 5 $mode | grep -c '^[1-9][0-9]*$')"
done
expect 'branch' 5 "$(timeout 20 $floor branch $guests/counter.elf 64 100 5 | grep -c '^[1-9][0-9]*$')"
expect 'clone-rate boot' 1 "$(timeout 20 $floor clone-rate $guests/hello.elf 64 1 boot | grep -c '^[1-9][0-9.]*$')"
expect 'clone-rate fork' 1 "$(timeout 20 $floor clone-rate $guests/counter.elf 64 1 fork | grep -c '^[1-9][0-9.]*$')"
expect 'write' 5 "$(timeout 20 $floor write $guests/counter.elf 64 100 5 | grep -c '^[1-9][0-9]*$')"
for mode in cold pooled; do
    expect "fork $mode" 5 "$(timeout 20 $floor fork $guests/counter.elf 64 5 $mode | grep -c '^[1-9][0-9]*$')"
done
expect 'clones' 1 "$(timeout 20 $floor clones $guests/counter.elf 64 20 | grep -c '^[1-9][0-9]*$')"

if [ "$failures" -ne 0 ]; then
    echo "$failures failed"
    exit 1
fi
echo 'all as it should be'
