#!/bin/sh
# Build the wheel, install it into an environment of its own, and try it from another directory.
#
# The checkout proves that the source works; only an installed wheel proves that nothing was left out of it and
# that the commands find *our* `tools` and `api`.  So the trial runs in a folder that has strangers of these
# names, with an empty environment, and without the checkout on any path.
set -eu

PYTHON=${PYTHON:-.venv/bin/python}
cd "$(dirname "$0")/.."
top=$PWD
case $PYTHON in */*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON") ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say() { echo "wheel check: $*"; }
fail() { echo "wheel check: $*" >&2; exit 1; }

say "building"
# By way of the sdist, so that what it leaves out is missed here too, and no stale build folder gets in.
"$PYTHON" -m build --no-isolation --outdir "$work/dist" . >"$work/build.txt" 2>&1 \
  || { cat "$work/build.txt" >&2; fail "the build failed"; }
wheel=$(ls "$work"/dist/*.whl)

"$PYTHON" - "$wheel" <<'PYTHON_END'
import sys
import zipfile

names = set(zipfile.ZipFile(sys.argv[1]).namelist())
rooms = {"merkle", "archive", "reducers", "replay", "api", "tools"}
tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
if tops != rooms:
    sys.exit(f"wheel check: the wheel holds {sorted(tops)}, not {sorted(rooms)}")
if untyped := sorted(room for room in rooms if f"{room}/py.typed" not in names):
    sys.exit(f"wheel check: no py.typed in {untyped}")
PYTHON_END

say "installing $(basename "$wheel")"
"$PYTHON" -m venv "$work/venv"
pip="$work/venv/bin/python -m pip --disable-pip-version-check -qq"
$pip install --require-hashes --requirement requirements.lock
$pip install --no-deps "$wheel"
$pip check

mkdir -p "$work/elsewhere/tools" "$work/elsewhere/api"
for name in tools api; do
  echo 'raise ImportError("a folder of the current directory was taken for ours")' >"$work/elsewhere/$name/__init__.py"
done
cd "$work/elsewhere"
run() { env -i PATH=/usr/bin:/bin HOME="$work/elsewhere" "$@" </dev/null; }

say "trying it from another directory"
version=$(run "$work/venv/bin/treering" --version)
case $version in *[0-9].[0-9]*) say "$version" ;; *) fail "treering --version said: $version" ;; esac
ours=$(cd "$top" && "$PYTHON" -P -m tools.cli --version | sed -n '/^code /p')
case $version in *"$ours"*) ;; *) fail "the wheel's source is not the checkout's, which has $ours" ;; esac
run "$work/venv/bin/verify-log" --help | grep -q "usage: verify-log" || fail "verify-log --help does not explain itself"

cp -R "$top/tests/vectors/golden-log-v1" "$work/golden"
vkey=$(sed -n 's/.*"vkey": "\(.*\)".*/\1/p' "$work/golden/expected.json")
verdict=$(run "$work/venv/bin/verify-log" "$work/golden" --vkey "$vkey" 2>/dev/null) \
  || fail "verify-log did not verify the golden log: $verdict"
say "$verdict"

say "good"
