#!/usr/bin/env bash
# Measures Batch-Channel Normalization on a GPU of this machine. README.txt says more.
set -u
export LC_ALL=C

usage() {
    cat <<EOF
Usage: ./measure.sh [OPTIONS]

Verifies and measures bcnorm on a GPU, and writes results.jsonl (JSON lines, as
it goes) and section.md (a section for benches/RESULTS.md) into a new folder.

Options:
  --minutes N      how long it may take in all [default: 8]
  --adapter NAME   a part of an adapter's name or backend [default: the best]
  --out DIR        where to [default: results-DATE-TIME in this folder]
  --only A,B,...   only some parts: ${names// /, }
  -h, --help       this text

Exit status: 0 all parts passed or were left out, 1 one failed, 2 wrong usage,
130 interrupted. What was measured until then is in the files.
EOF
}

# Every part and its share of the time; what one leaves goes to those after it.
shares="info:2 verify:14 f32:30 bf16:5 f16:5 last:6 subgroups:3 no-subgroups:3 small:7 small-layer:3 small-batch:3
small-group:1 tune:11 untuned:2 tuned:2 torch:9"
names=$(for share in $shares; do printf '%s ' "${share%:*}"; done)
names=${names% }

say() { printf '%s\n' "$*" >&2; }

wrong() {
    say "error: $* (see ./measure.sh --help)"
    exit 2
}

minutes=8 adapter=best out='' only=$names
line="measure.sh $*"
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --minutes | --adapter | --out | --only)
            [ $# -ge 2 ] && [ -n "$2" ] || wrong "$1 needs a value"
            case $1 in
                --minutes) minutes=$2 ;;
                --adapter) adapter=$2 ;;
                --out) out=$2 ;;
                --only) only=${2//,/ } ;;
            esac
            shift 2
            ;;
        *) wrong "unknown option '$1'" ;;
    esac
done
case $minutes in
    '' | *[!0-9]* | ?????*) wrong "--minutes is a whole number, not '$minutes'" ;;
esac
[ "$minutes" -ge 1 ] || wrong "--minutes is 1 or more"
for name in $only; do
    case " $names " in *" $name "*) ;; *) wrong "there is no part '$name': it is one of $names" ;; esac
done

total=$((60 * minutes))
out=${out:-results-$(date -u +%Y%m%d-%H%M%S)}
[ ! -e "$out/results.jsonl" ] || wrong "$out has results: name another folder"
parts=$out/parts
mkdir -p "$parts" || exit 1
out=$(cd "$out" && pwd) && parts=$out/parts || exit 1
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
here=$PWD
bcnorm=$here/bcnorm
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# The part that runs is ended; what it wrote is kept.
child='' interrupted=''
trap 'interrupted=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' INT TERM HUP

# --- Vulkan -------------------------------------------------------------------------------------------------

libraries=(/usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib /lib64 /lib /usr/local/lib /usr/local/nvidia/lib64
    /usr/local/nvidia/lib /usr/lib/wsl/lib)

# The path of a library of this machine.
library() {
    local found folder folders
    found=$({ ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | grep -F "$1 " | grep -F x86-64 | head -n 1)
    found=${found##* => }
    IFS=: read -r -a folders <<<"${LD_LIBRARY_PATH:-}"
    for folder in ${folders[@]+"${folders[@]}"} "${libraries[@]}"; do
        [ -n "$found" ] || [ -z "$folder" ] || [ ! -e "$folder/$1" ] || found=$folder/$1
    done
    [ -n "$found" ] && printf '%s\n' "$found"
}

search_also() { export LD_LIBRARY_PATH="$1${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; }

# Unpacks a Debian package into a folder, by whatever program there is.
unpack() {
    local data
    dpkg -x "$1" "$2" 2>/dev/null && return
    data=$(ar t "$1" 2>/dev/null | grep '^data\.tar') && ar p "$1" "$data" >"$scratch/$data" &&
        tar -xf "$scratch/$data" -C "$2" && return
    python3 - "$1" "$2" <<'EOF'
import io, sys, tarfile

with open(sys.argv[1], "rb") as deb:
    deb.read(8)
    while header := deb.read(60):
        size = int(header[48:58])
        data = deb.read(size + size % 2)
        if header.startswith(b"data.tar"):
            with tarfile.open(fileobj=io.BytesIO(data[:size])) as files:
                files.extractall(sys.argv[2])
EOF
}

# Vulkan's loader from the folder vulkan/ where the machine has none, and whatever packages lie there.
find_loader() {
    local package folder file
    mkdir -p "$scratch/packages" "$scratch/loader"
    for package in vulkan/*.deb; do
        [ ! -e "$package" ] || unpack "$package" "$scratch/packages" || say "note: cannot unpack $package"
    done
    for folder in "$scratch/packages"/{usr/,}lib{/x86_64-linux-gnu,64,}; do
        [ ! -d "$folder" ] || search_also "$folder"
    done
    library libvulkan.so.1 >/dev/null && return
    for file in vulkan/libvulkan.so.1*; do
        [ -e "$file" ] || continue
        ln -sf "$here/$file" "$scratch/loader/libvulkan.so.1"
        search_also "$scratch/loader"
        say "This machine has no Vulkan loader: $file serves."
        return
    done
    say "note: no Vulkan loader (libvulkan.so.1): put it, or Debian's package libvulkan1, into $here/vulkan"
}

finds_gpu() { WGPU_BACKEND=vulkan timeout 60 "$bcnorm" info --json 2>/dev/null | grep -q '"software": false'; }

# NVIDIA's driver where its library is there but the manifest that names it is not, or names one that cannot
# be loaded (the one for GLX wants X11's libraries).
find_nvidia() {
    local folder manifest name file manifests=()
    [ -e /dev/nvidiactl ] && [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] || return 0
    finds_gpu && return
    for folder in /usr/local/nvidia/lib64 /usr/lib/wsl/lib; do
        [ ! -d "$folder" ] || search_also "$folder"
    done
    for manifest in /usr/local/nvidia/share/vulkan/icd.d/*.json /usr/share/vulkan/icd.d/nvidia*.json; do
        [ ! -e "$manifest" ] || manifests+=("$manifest")
    done
    for name in libGLX_nvidia.so.0 libEGL_nvidia.so.0; do
        file=$(library "$name") || continue
        manifest=$scratch/$name.json
        printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' \
            "$file" >"$manifest"
        manifests+=("$manifest")
    done
    for manifest in ${manifests[@]+"${manifests[@]}"}; do
        export VK_DRIVER_FILES=$manifest VK_ICD_FILENAMES=$manifest
        if finds_gpu; then
            say "NVIDIA's driver is used by $manifest."
            return
        fi
    done
    unset VK_DRIVER_FILES VK_ICD_FILENAMES
    say "note: there is an NVIDIA card, and no Vulkan driver of it was found (is it a container without graphics?)"
}

# --- Parts --------------------------------------------------------------------------------------------------

# Text as it stands in JSON.
quoted() { printf '%s' "$*" | tr -s '\000-\037' ' ' | tr -d '\177-\377' | sed 's/\\/\\\\/g; s/"/\\"/g'; }

# Both files, whole: what the parts have written so far, lines that were cut off left out.
publish() {
    cat "$parts"/*.jsonl 2>/dev/null | grep '^{.*}$' >"$out/results.jsonl.new"
    mv "$out/results.jsonl.new" "$out/results.jsonl"
    if "$bcnorm" section "$out/results.jsonl" >"$out/section.md.new" 2>"$parts/section.log"; then
        mv "$out/section.md.new" "$out/section.md"
    else
        rm -f "$out/section.md.new"
    fi
}

failed=0
# Notes what became of a part: NAME RESULT SECONDS [NOTE]
conclude() {
    printf '{"part": "%s", "result": "%s", "seconds": %s, "note": "%s"}\n' \
        "$1" "$2" "$3" "$(quoted "${4:-}")" >>"$parts/99-parts.jsonl"
    printf '%-9s %-13s %4s s  %s\n' "$2" "$1" "$3" "${4:-}" >>"$parts/summary"
    [ "$2" != failed ] || failed=$((failed + 1))
    publish
}

weight() {
    local share
    for share in $shares; do
        [ "${share%:*}" != "$1" ] || printf '%s\n' "${share#*:}"
    done
}

weights=0
for name in $only; do weights=$((weights + $(weight "$name"))); done

wanted() { case " $only " in *" $1 "*) ;; *) return 1 ;; esac; }

number=10
last=''
# Runs a part in its share of the time that is left: NAME COMMAND...; bench, tune and verify are bcnorm's.
part() {
    local name=$1 share left budget hard file begin status note=''
    shift
    last=''
    wanted "$name" || return 0
    share=$(weight "$name") left=$((total - SECONDS))
    # Each has a few seconds at least.
    budget=$((left * share / weights))
    [ "$budget" -ge 10 ] || budget=10
    weights=$((weights - share))
    if [ -n "$interrupted" ]; then
        conclude "$name" skipped 0 interrupted
        return
    elif [ "$left" -lt 10 ]; then
        conclude "$name" skipped 0 "the time is over"
        return
    fi
    # Those that mind the time end by themselves.
    hard=$((budget + budget / 4 + 10))
    [ "$hard" -le "$left" ] || hard=$left budget=$((budget < left - 5 ? budget : left - 5))
    case $1 in
        bench)
            shift
            set -- "$bcnorm" bench --no-cpu --json --steps --submission-ms 10 --repeats 5 --adapter "$adapter" \
                --seconds "$budget" "$@"
            ;;
        tune)
            shift
            set -- "$bcnorm" tune --submission-ms 10 --repeats 5 --adapter "$adapter" --seconds "$budget" "$@"
            ;;
        verify) set -- "$bcnorm" verify golden --json --adapter "$adapter" ;;
    esac
    number=$((number + 1))
    file=$parts/$number-$name
    say "$name: up to $hard s"
    begin=$SECONDS
    timeout -k 5 "$hard" "$@" >"$file.jsonl" 2>"$file.log" &
    child=$!
    # A signal ends the waiting before the part.
    while :; do
        wait "$child"
        status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=''
    last=passed
    note=$(grep '^note: ' "$file.log" | sed 's/^note: //')
    case $status in
        0) ;;
        *)
            last=failed
            note=$(grep '^error: ' "$file.log" | tail -n 3)
            note=${note:-$(tail -n 1 "$file.log")}
            ;;
    esac
    if grep -q '"pass":false' "$file.jsonl"; then
        last=failed
    elif [ -n "$interrupted" ]; then
        last=cut note=interrupted
    elif [ "$status" = 124 ] || [ "$status" = 137 ]; then
        last=cut note="stopped after $hard s; what it had measured counts"
    fi
    conclude "$name" "$last" $((SECONDS - begin)) "${note:-}"
}

find_loader
find_nvidia
version=$(cat VERSION 2>/dev/null || echo "bcnorm of unknown version")
distribution=$(sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\).*/\1/p' /etc/os-release 2>/dev/null)
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
system="$(uname -sr)${distribution:+, $distribution}; $(nproc 2>/dev/null || echo ?) processors, ${processor:-unknown}"
printf '{"kit": {"version": "%s", "date": "%s", "system": "%s", "command": "%s"}}\n' "$(quoted "$version")" \
    "$(date -u +%F)" "$(quoted "$system")" "$(quoted "$line")" >"$parts/10-kit.jsonl"
if ! "$bcnorm" --version >/dev/null 2>"$parts/version.log"; then
    say "error: the command does not run here: $(tail -n 1 "$parts/version.log")"
    exit 1
fi

# shellcheck disable=SC2016 # It is the inner shell's.
part info bash -c 'set -o pipefail; "$0" info --json | tr -d "\n" | tr -s " " | grep "\"default\": true"' "$bcnorm"
"$bcnorm" info 2>/dev/null | grep '^#' >&2
# A card that is there by Vulkan is not measured by GL as well.
pattern=$adapter
[ "$adapter" != best ] || pattern=''
if [ -z "${WGPU_BACKEND:-}" ] &&
    WGPU_BACKEND=vulkan "$bcnorm" info 2>/dev/null | grep '^#' | grep -qiF -- "$pattern"; then
    export WGPU_BACKEND=vulkan
fi
part verify verify
part f32 bench --suite typical,resnet50,detection
part bf16 bench --suite typical --dtype bf16
part f16 bench --suite typical --dtype f16
part last bench --suite typical --layout last
some=(--shape 16x512x7x7 --shape 8x64x56x56 --shape 32x1024x14x14 --shape 4096x512 --shape 32x256x56x56)
part subgroups bench "${some[@]}" --label "Subgroups: with"
part no-subgroups bench "${some[@]}" --label "Subgroups: without" --tune limits.subgroup_size=1
part small bench --suite short,small
part small-layer bench --norm layer_norm --shape 4096,512 --shape 2048,2048 --suite short
part small-batch bench --norm batch_norm --suite short
part small-group bench --norm group_norm --direction eval --shape 16,512,7,7 --shape 2,2048,7,7
tuning=$out/tuning.txt
some=(--shape 8x64x56x56 --shape 16x512x7x7 --shape 32x1024x14x14)
part tune tune "${some[@]}" --save "$tuning"
if wanted tuned || wanted untuned; then
    changes=$(grep '(default' "$tuning" 2>/dev/null | sed 's/^# //')
    if [ -n "$changes" ]; then
        part untuned bench "${some[@]}" --shape 32,256,56,56 --label "Tuning: the default"
        part tuned bench "${some[@]}" --shape 32,256,56,56 --tuning "$tuning" \
            --label "Tuning: $(printf '%s' "$changes" | tr '\n' ',' | sed 's/,/, /g')"
    else
        why="bcnorm tune found nothing faster"
        [ -e "$tuning" ] || why="no tuning was searched"
        for name in untuned tuned; do
            wanted "$name" || continue
            weights=$((weights - $(weight "$name")))
            conclude "$name" skipped 0 "$why"
        done
    fi
fi
if wanted torch && [ -z "$interrupted" ]; then
    if timeout --foreground 60 python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        part torch python3 torch_bcnorm.py --device cuda --json --repeats 7 --shape 32,256,56,56 \
            --shape 8,64,56,56 --shape 32,1024,14,14 --shape 2,256,100,150 --shape 16,512,7,7
    else
        conclude torch skipped 0 "python3 has no PyTorch with CUDA"
    fi
fi

publish
say ""
cat "$parts/summary" >&2
say ""
if [ -e "$out/section.md" ]; then
    say "$out/section.md, $out/results.jsonl"
else
    say "$out/results.jsonl; no section.md: $(tail -n 1 "$parts/section.log")"
fi
[ -z "$interrupted" ] || exit 130
[ "$failed" = 0 ]
