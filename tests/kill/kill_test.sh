#!/bin/bash
# A run that is killed leaves the older output or the new one, never a half one, and no rubbish behind the next run.
#   kill_test.sh PERCEPT MOMENTS [SEED]
# Two settings give two results, "old" and "new". With the old result in place, `percept run` of the new one gets SIGKILL
# at MOMENTS moments, spread over the length of a run (and a little beyond) by numbers that SEED fixes. Compared are the
# sha256 sums of all files but run.json, which holds the time.
set -euo pipefail
percept=$1 moments=$2 seed=${3:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $*" >&2; exit 1; }

cat > reach.toml <<'TOML'
[input]
simulate = "reach"
channels = 24
rate_hz = 20
duration_s = 120
seed = 7
[[stage]]
use = "zscore"
from = "activity"
[[stage]]
name = "map"
use = "ridge"
target = "kinematics"
covariance = "holdout"
[[stage]]
use = "dkf"
target = "kinematics"
[[split]]
use = "time"
train_s = [0, 80]
test_s = [85, 120]
[[score]]
metrics = ["nrmse", "r2"]
bootstrap = 100
permutations = 100
shuffles = 2
[run]
seed = 1
TOML

state() { (cd "$1" && find . -type f ! -name run.json -print0 | sort -z | xargs -0 sha256sum) | sha256sum | cut -d' ' -f1; }
run() { "$percept" run reach.toml --set run.seed="$1" --threads 1 --quiet -o out/run >/dev/null; }
now_us() { echo $((${EPOCHREALTIME/./})); }

run 1
old=$(state out/run)
cp -a out/run kept
run 2
new=$(state out/run)
[ "$old" != "$new" ] || fail "the two settings give the same result"
# the length of a run: the median of five
length=$(for _ in 1 2 3 4 5; do a=$(now_us); run 2; echo $(($(now_us) - a)); done | sort -n | sed -n 3p)

RANDOM=$seed
stayed=0 replaced=0 killed=0
for ((i = 1; i <= moments; ++i)); do
  rm -rf out/run
  cp -a kept out/run
  # one moment in each of MOMENTS equal parts of 1.1 lengths
  at=$(((length * 11 / 10) * (i - 1) / moments + (length * 11 / 10) * RANDOM / 32768 / moments))
  "$percept" run reach.toml --set run.seed=2 --threads 1 --quiet -o out/run >/dev/null &
  pid=$!
  sleep "$(printf '%d.%06d' $((at / 1000000)) $((at % 1000000)))"
  kill -KILL "$pid" 2>/dev/null || true
  code=0
  wait "$pid" 2>/dev/null || code=$?
  case $code in 137) killed=$((killed + 1)) ;; 0) ;; *) fail "moment $i: exit code $code" ;; esac
  [ -d out/run ] || fail "moment $i (${at} us): the output folder is gone"
  case $(state out/run) in
    "$old") stayed=$((stayed + 1)) ;;
    "$new") replaced=$((replaced + 1)) ;;
    *) fail "moment $i (${at} us): the output folder is neither the old one nor the new one" ;;
  esac
done

run 2
[ "$(state out/run)" = "$new" ] || fail "the rerun gives other bytes"
left=$(ls -A out)
[ "$left" = run ] || fail "left beside the output: $left"
[ "$killed" -gt 0 ] && [ "$stayed" -gt 0 ] || fail "no run was killed before its end: nothing was tested"
echo "$moments moments over $((length / 1000)) ms: killed $killed, old folder $stayed times, new folder $replaced times"
